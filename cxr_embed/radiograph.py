"""The value that the reading rooms hand on: a rendered radiograph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

VIEWS = ("all", "frontal")
RENDERINGS = ("cxr_foundation", "dicom")

# Above any detector's size, and below what a laptop can hold a few of.
DEFAULT_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class InputFacts:
    bytes: int
    crc32c: str


@dataclass(slots=True)
class Radiograph:
    """A rendered, single-frame greyscale radiograph.

    Attributes:
        pixels: uint8 or uint16 of shape (rows, columns), C-contiguous; bright is dense.
        warnings: stable codes, keys of `cxr_embed.outcomes.WARNINGS`, in the order found.
        view_position: View Position (0018,5101) in upper case; None for other file types, or
            where the element is absent; an empty string where it is there and empty.
        steps: what was done to the stored values, in order, for people who look into one file.
    """

    pixels: np.ndarray
    warnings: list[str] = field(default_factory=list)
    view_position: str | None = None
    steps: list[str] = field(default_factory=list)
    source: InputFacts | None = None

    @property
    def full_range(self) -> int:
        """Largest value that the pixels' type can hold: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)
