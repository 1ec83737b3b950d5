"""The attributes of a header that decide how its pixels are rendered. Clauses: DICOM PS3.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset


# The defined terms of VOI LUT Function (C.11.2.1.3), and what any other value becomes.
VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
UNDEFINED = "UNDEFINED"


@dataclass(frozen=True)
class LookupTable:
    """A Modality LUT (C.11.1) or VOI LUT (C.11.2).

    Attributes:
        first_mapped: the input value that maps to the first entry.
        entries: uint8 or uint16 of shape (n,).
        bits: significant bits of an entry, the descriptor's third value.
    """

    first_mapped: int
    entries: np.ndarray
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Looks up int64 `values`; those outside take the first or last entry (C.11.1.1.1)."""
        index = np.clip(values - self.first_mapped, 0, len(self.entries) - 1)
        return cast(np.ndarray, self.entries[index])

    def __str__(self) -> str:
        count = len(self.entries)
        entries = "entry" if count == 1 else "entries"
        return f"{count} {entries} of {self.bits} bits, the first for {self.first_mapped}"


@dataclass(frozen=True)
class Window:
    """The first window of the header.

    Attributes:
        centre: Window Center (0028,1050).
        width: Window Width (0028,1051).
        centre_is_listed: Window Center had several values, of which this is the first.
        width_is_listed: the same of Window Width.
    """

    centre: float
    width: float
    centre_is_listed: bool = False
    width_is_listed: bool = False


@dataclass(frozen=True)
class RenderingAttributes:
    """Everything in a header that decides the rendered pixels.

    Attributes:
        monochrome1: the lowest value is to be displayed as white (C.7.6.3.1.2).
        modality_lut: Modality LUT Sequence; wins over `rescale`.
        rescale: (slope, intercept).
        window: first window, or None.
        voi_lut: first item of the VOI LUT Sequence, or None.
        voi_function: one of `VOI_FUNCTIONS`; empty where absent, `UNDEFINED` for other values.
        inverse: Presentation LUT Shape is INVERSE (C.11.6).
        padding: (lowest, highest) padding value, in stored values (C.7.5.1.1.2).
    """

    monochrome1: bool = False
    modality_lut: LookupTable | None = None
    rescale: tuple[float, float] | None = None
    window: Window | None = None
    voi_lut: LookupTable | None = None
    voi_function: str = ""
    inverse: bool = False
    padding: tuple[int, int] | None = None


class TooFewEntries(Exception):
    """A table with fewer entries than its descriptor gives. The message holds numbers only."""


def parse_lookup_table(
    item: Dataset, *, signed_input: bool, implicit: bool, little_endian: bool
) -> LookupTable:
    """Reads an item of a Modality LUT Sequence or VOI LUT Sequence.

    Args:
        item: holds LUT Descriptor (0028,3002) and LUT Data (0028,3006).
        signed_input: the values that go into the table may be negative.
        implicit: the value representations were guessed, not read.
        little_endian: how the words of LUT Data are stored where they are still bytes.

    Returns:
        The table. Where entries need more bits than the descriptor gives, or the descriptor gives
        an impossible number of bits, the largest entry decides the number of bits.

    Raises:
        TooFewEntries: there are fewer than the descriptor gives; the message holds both numbers.
        Exception: any that pydicom raises on elements that are missing or damaged.
    """
    descriptor = item["LUTDescriptor"]
    count, first_mapped, bits = (int(number) & 0xFFFF for number in descriptor.value)
    count = count or 1 << 16
    # C.11.1.1 and C.11.2.1.1: whether the second value is US or SS follows from the input, and one
    # VR holds for all three. In a file that has SS instead of US it is a negative number.
    if signed_input or (descriptor.VR == "SS" and not implicit):
        first_mapped = (first_mapped ^ 0x8000) - 0x8000
    words = _words(item["LUTData"].value, little_endian)
    if bits <= 8 and len(words) < count and len(words) == (count + 1) // 2:
        # Two entries a word, the first in its low byte, as 8-bit pixels in words (PS3.5 8.1.1).
        words = words.astype("<u2").view("u1")
    if len(words) < count:
        raise TooFewEntries(f"{len(words)} entries of {bits} bits, LUT Descriptor gives {count}")
    entries = words[:count]
    needed = int(entries.max()).bit_length()
    if not max(needed, 1) <= bits <= 16:
        bits = max(needed, 8)
    return LookupTable(first_mapped, entries.astype("u1" if bits <= 8 else "u2"), bits)


def _words(data: Any, little_endian: bool) -> np.ndarray:
    if isinstance(data, bytes):
        return np.frombuffer(data + b"\0" * (len(data) % 2), "<u2" if little_endian else ">u2")
    return (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(np.uint16)
