"""Takes compressed frames out of Pixel Data and checks them before they are decoded.

A DICOM header may give 100 × 100 pixels while the stream inside gives 65,000 × 65,000, and decoders
allocate memory by the size that the stream gives.

pydicom splits Pixel Data into fragments here, from a view and without copies. Its own
`generate_frames` is not used: it copies the frame, trusts the offset table, and makes a list of
integers of a table of any length, which takes eleven times the memory of the table.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from pydicom.encaps import generate_fragments
from pydicom.uid import RLELossless

from cxr_embed.errors import ImageRejected

# Start of frame: all but DHT (C4), JPG (C8) and DAC (CC) of ITU-T T.81, and SOF55 of T.87.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_NO_PAYLOAD = frozenset(range(0xD0, 0xD9)) | {0x01}

_TAG_BYTES = 4
_MAX_FRAGMENTS = 1_000_000


class NotForThisDecoder(Exception):
    """The stream has something that a fast decoder does not know; the next one reads it."""


class StreamSize(NamedTuple):
    """The size that a stream gives: rows, columns and colour components."""

    rows: int
    columns: int
    components: int


class _View:
    """A buffer that pydicom reads from without copying."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._position = view, 0

    def read(self, size: int) -> memoryview:
        data = self._view[self._position : self._position + size]
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position


def only_frame(pixel_data: bytes | memoryview) -> memoryview:
    """Takes the only frame out of encapsulated Pixel Data (PS3.5 A.4).

    All fragments belong to it. The offset table is not used: it is often wrong.

    Args:
        pixel_data: the value of Pixel Data.

    Returns:
        The stream, fragments joined; cut short where the value is.

    Raises:
        ImageRejected: `multi_frame`, `truncated`, or `decode_error` where the items are damaged.
    """
    buffer = _View(memoryview(pixel_data))
    items: list[memoryview] = []
    try:
        # Starts at the offset table, which is an item like the fragments.
        for item in generate_fragments(buffer):
            items.append(item)
            if len(items) > _MAX_FRAGMENTS:
                raise ImageRejected("decode_error", f"more than {_MAX_FRAGMENTS} fragments")
    except ValueError as error:
        # Where nothing follows, the value was cut short inside an item's header.
        if len(buffer.read(_TAG_BYTES)) == _TAG_BYTES:
            raise ImageRejected("decode_error", "the encapsulated Pixel Data is damaged") from error
    if len(items) < 2:
        raise ImageRejected("truncated", "no compressed pixels in the encapsulated Pixel Data")
    if len(items[0]) > 4:
        raise ImageRejected("multi_frame", f"{len(items[0]) // 4} frames in the offset table")
    return items[1] if len(items) == 2 else memoryview(b"".join(items[1:]))


def check_stream(
    frame: memoryview, transfer_syntax: str, rows: int, columns: int, bytes_each: int
) -> None:
    """Checks that a compressed frame agrees with the header.

    Args:
        frame: the stream, fragments joined, encapsulation taken off.
        transfer_syntax: its UID.
        rows: as the header gives them.
        columns: likewise.
        bytes_each: bytes of one stored value, Bits Allocated / 8.

    Raises:
        ImageRejected: `truncated`, or `decode_error` where stream and header disagree.
    """
    if transfer_syntax == RLELossless:
        _check_rle(frame, bytes_each)
        return
    size = read_stream_size(frame)
    if size is None:
        raise ImageRejected("decode_error", "the compressed pixels have no readable frame header")
    if (size.rows, size.columns) != (rows, columns):
        raise ImageRejected(
            "decode_error",
            f"the compressed pixels are {size.rows} x {size.columns}, the header gives "
            f"{rows} x {columns}",
        )
    if size.components != 1:
        raise ImageRejected(
            "decode_error", f"the compressed pixels have {size.components} components"
        )


def read_stream_size(frame: memoryview) -> StreamSize | None:
    """Returns the size that a JPEG, JPEG-LS, JPEG 2000 or HTJ2K stream gives; None without it."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    start = bytes(frame[:4096]).find(b"\xff\x4f\xff\x51")  # some writers add JP2 boxes before it
    return None if start < 0 else _jpeg2000_size(frame, start + 2)


def is_cut_short(frame: memoryview, transfer_syntax: str) -> bool:
    """Whether a stream that could not be decoded lacks its end.

    JPEG, JPEG-LS and JPEG 2000 end in FFD9, which does not occur in their compressed bytes. RLE has
    no such mark; where its header is in order, only missing bytes can be wrong with it.
    """
    if transfer_syntax == RLELossless:
        return True
    end = re.compile(b"\xff\xd9")  # searches a view without copying it
    return end.search(frame[-64:]) is None and end.search(frame) is None


def _jpeg_size(frame: memoryview) -> StreamSize | None:
    """ITU-T T.81 B.2.2: reads the markers up to the start of frame."""
    position = 2
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _NO_PAYLOAD:
            position += 2
        elif marker in _FRAME_MARKERS:
            if position + 10 > len(frame):
                return None
            rows, columns, components = struct.unpack_from(">HHB", frame, position + 5)
            return StreamSize(rows, columns, components)
        else:
            position += 2 + max(2, int.from_bytes(frame[position + 2 : position + 4], "big"))
    return None


def _jpeg2000_size(frame: memoryview, siz: int) -> StreamSize | None:
    """ITU-T T.800 A.5.1, the SIZ marker segment."""
    if len(frame) < siz + 40:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, siz + 6)
    (components,) = struct.unpack_from(">H", frame, siz + 38)
    return StreamSize(bottom - top, right - left, components)


def _check_rle(frame: memoryview, bytes_each: int) -> None:
    """PS3.5 G.5: up to 15 segments, one for each byte of a stored value."""
    if len(frame) < 64:
        raise ImageRejected("truncated", "the RLE header is cut short")
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[: min(count, 15)]
    if count != bytes_each:
        raise ImageRejected("decode_error", f"{count} RLE segments, the header needs {bytes_each}")
    if used != sorted(used) or used[0] < 64:
        raise ImageRejected("decode_error", "the RLE segment offsets are out of order")
    if used[-1] >= len(frame):
        raise ImageRejected("truncated", "an RLE segment starts beyond the end")
