"""The result of reading an image file: a rendered radiograph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

VIEWS = ("all", "frontal")

# More than any detector has, and few enough for a laptop to hold several such images.
DEFAULT_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class InputFacts:
    """Which bytes a radiograph was read from.

    Attributes:
        bytes: size of the file as it is stored, gzip-compressed or not.
        crc32c: CRC-32C (Castagnoli) of those bytes, 8 lower-case hexadecimal digits.
    """

    bytes: int
    crc32c: str


@dataclass(slots=True)
class Radiograph:
    """A rendered, single-frame greyscale radiograph.

    Attributes:
        pixels: uint8 or uint16 of shape (rows, columns), C-contiguous; bright is dense.
        warnings: stable codes, keys of `cxr_embed.outcomes.WARNINGS`, in the order found.
        view_position: View Position (0018,5101) in upper case; None for other file types, or
            where the element is absent; an empty string where it is present and empty.
        steps: what was done to the stored values, in order, as `cxr-embed inspect` prints it.
        source: the file that it was read from, where the caller of `read_image` has set it.
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
