"""Reads a few elements of a DICOM file from its bytes, without copying the pixels.

pydicom reads the elements. The preamble and the file meta information (PS3.10 7.1) are read here,
because pydicom inflates a deflated data set without a limit. Pixel Data is taken as a view of the
file here, because copying it takes as long as the rest of the reading.
"""

from __future__ import annotations

from cxr_embed.imaging import safe_pydicom  # noqa: F401  must come before pydicom

# isort: split

from collections.abc import Callable, Sequence
from typing import Literal

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from cxr_embed import file_types
from cxr_embed.errors import ImageRejected
from cxr_embed.file_types import Buffer

_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
# With Float and Double Float Pixel Data. Reading ends where one of the three begins.
_PIXELS = frozenset({_PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)

# The first tag after those elements of the Image Pixel module that give the size of the pixels.
_AFTER_SIZE = 0x00280200

_StopWhen = Callable[[int, str | None, int], bool]


class _Reader:
    """A file in memory for pydicom, which records whether it ended inside an element."""

    def __init__(self, data: Buffer, position: int = 0) -> None:
        self._view = memoryview(data)
        self._position = position
        self._was_short = False

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = max(0, len(self._view) - self._position)
        data = bytes(self._view[self._position : self._position + size])
        # Nothing left of an element's 8 or fewer bytes of header is a proper end.
        self._was_short |= len(data) < size and (len(data) > 0 or size > 8)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, len(self._view))[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def holds(self, size: int) -> bool:
        """Whether `size` more bytes can be read."""
        return self._position + size <= len(self._view)

    @property
    def is_cut_short(self) -> bool:
        return self._was_short or self._position > len(self._view)


def is_deflated(data: Buffer) -> bool:
    """Whether the file meta information of a DICOM file gives the deflated transfer syntax."""
    return _read_file_meta(data)[0] == DeflatedExplicitVRLittleEndian


def read_dicom(data: Buffer, tags: Sequence[int], limit: int) -> tuple[Dataset, str]:
    """Reads some elements up to Pixel Data.

    Args:
        data: the whole file, with or without preamble and file meta information.
        tags: the elements to keep.
        limit: a deflated data set may inflate to this many bytes.

    Returns:
        The elements that are present, and the transfer syntax UID. The value of Pixel Data is a
        view of `data`; it is shorter than the element's length where the file ends inside it.

    Raises:
        ImageRejected: `truncated`, `too_large` or `decode_error`.
        Exception: any that pydicom raises on a damaged file.
    """
    syntax, start = _read_file_meta(data)
    view = memoryview(data)
    if syntax == DeflatedExplicitVRLittleEndian:
        view, start = memoryview(file_types.inflate_raw(view[start:], limit)), 0
    return _read_elements(view, start, syntax, tags)


def read_dicom_start(data: Buffer, tags: Sequence[int]) -> tuple[Dataset, str, bool]:
    """Reads some elements from the first bytes of a DICOM file.

    Args:
        data: the first bytes.
        tags: the elements to keep.

    Returns:
        The elements that are present, the transfer syntax UID, and whether these are all elements
        before the pixels. Where they are not, only elements that lie in `data` with those before
        them are returned, at most those up to the size of the pixels.

    Raises:
        ImageRejected: `truncated` or `decode_error`; the whole file may be in order.
        Exception: any that pydicom raises on a damaged file.
    """
    syntax, start = _read_file_meta(data)
    view = memoryview(data)
    if syntax == DeflatedExplicitVRLittleEndian:
        view, start = memoryview(file_types.inflate_raw_start(view[start:], len(data))), 0
    try:
        dataset, syntax_read = _read_elements(view, start, syntax, tags)
    except ImageRejected as rejected:
        if rejected.reason != "truncated":
            raise
    else:
        return dataset, syntax_read, any(tag in dataset for tag in _PIXELS)
    reader = _Reader(view, start)

    def is_after_size(tag: int, vr: str | None, length: int) -> bool:
        return tag >= _AFTER_SIZE or (length != _UNDEFINED and not reader.holds(length))

    dataset = _read_until(reader, *_encoding(syntax, view[start : start + 6]), is_after_size, tags)
    return dataset, syntax, False


def _read_elements(
    view: memoryview, start: int, syntax: str, tags: Sequence[int]
) -> tuple[Dataset, str]:
    implicit, little = _encoding(syntax, view[start : start + 6])
    reader = _Reader(view, start)
    dataset = _read_until(reader, implicit, little, _is_pixels, tags)
    implicit = dataset.original_encoding[0] is True  # may differ from the transfer syntax
    element = _pixels(view[reader.tell() :], implicit, little)
    if element is not None:
        dataset[element.tag] = element
    elif reader.is_cut_short:
        raise ImageRejected("truncated", "the file ends inside an element")
    if not syntax:
        syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if implicit else syntax
    return dataset, str(syntax)


def _read_until(
    reader: _Reader, implicit: bool, little: bool, stop_when: _StopWhen, tags: Sequence[int]
) -> Dataset:
    try:
        return read_dataset(reader, implicit, little, stop_when=stop_when, specific_tags=list(tags))
    except (EOFError, OSError):  # reading from memory fails only where the file ends
        raise ImageRejected("truncated", "the file ends inside an element") from None


def _is_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXELS


def _read_file_meta(data: Buffer) -> tuple[str, int]:
    """Returns the transfer syntax UID, empty where there is none, and the data set's offset."""
    position = 132 if data[128:132] == b"DICM" else 0
    syntax = ""
    while data[position : position + 2] == b"\x02\x00":
        header, length = _header(bytes(data[position : position + 12]), little=True)
        if length == _UNDEFINED:
            raise ImageRejected("decode_error", "an element of undefined length in the file meta")
        tag, position = data[position : position + 4], position + header
        if tag == b"\x02\x00\x10\x00":
            uid = bytes(data[position : position + length])
            syntax = uid.decode("ascii", "replace").strip("\0 ")
        position += length
    if position > len(data):
        raise ImageRejected("truncated", "the file ends inside an element")
    return syntax, position


def _header(start: bytes, *, little: bool, implicit: bool = False) -> tuple[int, int]:
    """Returns the sizes of an element's header and value (PS3.5 7.1), as pydicom reads them."""
    order = _order(little)
    vr = start[4:6]
    if implicit or not b"AA" <= vr <= b"ZZ":
        return 8, int.from_bytes(start[4:8], order)
    if vr in _LONG_VRS:
        return 12, int.from_bytes(start[8:12], order)
    return 8, int.from_bytes(start[6:8], order)


def _order(little: bool) -> Literal["little", "big"]:
    return "little" if little else "big"


def _encoding(syntax: str, start: memoryview) -> tuple[bool, bool]:
    """Returns whether the data set is implicit, and whether it is little endian."""
    if syntax:
        return syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    # No file meta. Elements start with group 0008; in the other byte order that is 2048.
    implicit = not b"AA" <= bytes(start[4:6]) <= b"ZZ"
    return implicit, implicit or int.from_bytes(start[:2], "little") < 1024


def _pixels(rest: memoryview, implicit: bool, little: bool) -> DataElement | None:
    """Returns the element of pixels that `rest` starts with; None where there is none."""
    start, order = bytes(rest[:12]), _order(little)
    tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
    if len(start) < 8 or tag not in _PIXELS:
        return None
    header, length = _header(start, little=little, implicit=implicit)
    # An undefined length ends in a delimiter, which the reader of the fragments finds.
    value = rest[header:] if length == _UNDEFINED else rest[header : header + length]
    # Implicit VR means OW (PS3.5 A.1). Floating-point pixels are rejected without being read.
    return DataElement(tag, "OB" if start[4:6] == b"OB" and not implicit else "OW", value)
