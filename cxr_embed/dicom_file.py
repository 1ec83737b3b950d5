"""The bytes of a DICOM file to a few elements of its data set, pixels not copied.

pydicom reads the elements. What stands before them (PS3.10 7.1) is read here, because pydicom
inflates a deflated data set without a bound; and Pixel Data is cut out here, because copying it
takes as long as the rest of the reading.
"""

from __future__ import annotations

from cxr_embed import safe_pydicom  # noqa: F401  must come before pydicom

# isort: split

from collections.abc import Sequence
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

_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
# Float and Double Float Pixel Data; reading ends where one of the three begins.
_PIXELS = frozenset({_PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)


class _Reader:
    """A file for pydicom to read from, which remembers whether it ended inside an element."""

    def __init__(self, data: bytes | memoryview, position: int = 0) -> None:
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

    @property
    def is_cut_short(self) -> bool:
        return self._was_short or self._position > len(self._view)


def read_dicom(data: bytes, tags: Sequence[int], limit: int) -> tuple[Dataset, str]:
    """Reads some elements up to Pixel Data.

    Args:
        data: the whole file, with or without preamble and file meta information.
        tags: the elements to keep.
        limit: a deflated data set may inflate to this many bytes.

    Returns:
        The elements that are there, and the transfer syntax UID. The value of Pixel Data is a view
        of `data`, as long as there is something of it.

    Raises:
        ImageRejected: `truncated`, `too_large` or `decode_error`.
        Exception: whatever pydicom makes of a damaged file.
    """
    syntax, start = _read_file_meta(data)
    view = memoryview(data)
    if syntax == DeflatedExplicitVRLittleEndian:
        view, start = memoryview(file_types.inflate_raw(data[start:], limit)), 0
    implicit, little = _encoding(syntax, view[start : start + 6])
    reader = _Reader(view, start)
    try:
        dataset = read_dataset(
            reader, implicit, little, stop_when=_is_pixels, specific_tags=list(tags)
        )
    except (EOFError, OSError):  # a read from memory fails only where the file ends
        raise ImageRejected("truncated", "the file ends inside an element") from None
    implicit = dataset.original_encoding[0] is True  # some files do not keep what their meta says
    element = _pixels(view[reader.tell() :], implicit, little)
    if element is not None:
        dataset[element.tag] = element
    elif reader.is_cut_short:
        raise ImageRejected("truncated", "the file ends inside an element")
    if not syntax:
        syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if implicit else syntax
    return dataset, str(syntax)


def _is_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXELS


def _read_file_meta(data: bytes) -> tuple[str, int]:
    """Returns the transfer syntax UID, empty where none is told, and where the data set starts."""
    position = 132 if data[128:132] == b"DICM" else 0
    syntax = ""
    while data[position : position + 2] == b"\x02\x00":
        header, length = _header(data[position : position + 12], little=True)
        if length == _UNDEFINED:
            raise ImageRejected("decode_error", "an element of undefined length in the file meta")
        tag, position = data[position : position + 4], position + header
        if tag == b"\x02\x00\x10\x00":
            syntax = data[position : position + length].decode("ascii", "replace").strip("\0 ")
        position += length
    if position > len(data):
        raise ImageRejected("truncated", "the file ends inside an element")
    return syntax, position


def _header(start: bytes, *, little: bool, implicit: bool = False) -> tuple[int, int]:
    """Returns the sizes of an element's header and value (PS3.5 7.1), as pydicom sees them."""
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
    # No file meta. Elements start with group 0008; seen from the wrong end that is 2048.
    implicit = not b"AA" <= bytes(start[4:6]) <= b"ZZ"
    return implicit, implicit or int.from_bytes(start[:2], "little") < 1024


def _pixels(rest: memoryview, implicit: bool, little: bool) -> DataElement | None:
    """Returns the element at which reading has ended; None at the end of the file."""
    start, order = bytes(rest[:12]), _order(little)
    tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
    if len(start) < 8 or tag not in _PIXELS:
        return None
    header, length = _header(start, little=little, implicit=implicit)
    # An undefined length ends in a delimiter, which the reader of the fragments finds.
    value = rest[header:] if length == _UNDEFINED else rest[header : header + length]
    # Implicit VR means OW (PS3.5 A.1); the other kinds of pixels are never looked into.
    return DataElement(tag, "OB" if start[4:6] == b"OB" and not implicit else "OW", value)
