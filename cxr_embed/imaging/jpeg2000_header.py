"""Reads what the main header of a JPEG 2000 or HTJ2K stream says of its samples (ITU-T T.800 A)."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

# Markers of A.2: start of stream and size, coding style, start of the first tile.
_SOC_SIZ, _COD, _COC, SOT = b"\xff\x4f\xff\x51", 0xFF52, 0xFF53, 0xFF90
# Where SIZ holds the depth of the first component, and COD the number of decompositions and the
# transformation: bytes after the marker.
_DEPTH_AT, _LEVELS_AT, _TRANSFORMATION_AT = 40, 9, 13


class Samples(NamedTuple):
    """The samples of a stream of one component.

    Attributes:
        start: position of the stream; some writers add JP2 boxes before it.
        tiles_at: position of the first tile.
        bits: their precision.
        is_signed: whether they are.
        decompositions: how often the stream halves the image.
        is_reversible: whether the wavelet is that of integers, which all decoders invert exactly.
    """

    start: int
    tiles_at: int
    bits: int
    is_signed: bool
    decompositions: int
    is_reversible: bool

    def agree_with(self, options: dict[str, Any]) -> bool:
        """Whether a DICOM header says the same of sign and depth.

        Args:
            options: pydicom's: bits_allocated, pixel_representation.
        """
        is_signed = options["pixel_representation"] == 1
        return self.is_signed == is_signed and self.bits <= options["bits_allocated"]


def read_samples(frame: bytes | memoryview) -> Samples | None:
    """Returns what a stream's main header says of its samples; None where it is not plain.

    Not plain are damaged ones, images or tiles that do not begin at 0, 0, more than 16 bits, and a
    coding style that differs by component.
    """
    head = bytes(frame[:4096])
    start = head.find(_SOC_SIZ)
    siz = start + 2
    if start < 0 or siz + _DEPTH_AT >= len(head):
        return None
    depth = head[siz + _DEPTH_AT]
    origins = struct.unpack_from(">II8xII", head, siz + 14)
    bits = (depth & 0x7F) + 1
    if any(origins) or bits > 16:
        return None
    position = siz
    style: tuple[int, bool] | None = None
    while position + 4 <= len(head):
        marker, length = struct.unpack_from(">HH", head, position)
        if marker == SOT:
            return style and Samples(start, position, bits, depth > 0x7F, *style)
        if marker == _COC or length < 2:
            return None
        if marker == _COD and position + _TRANSFORMATION_AT < len(head):
            style = head[position + _LEVELS_AT], head[position + _TRANSFORMATION_AT] == 1
        position += 2 + length
    return None
