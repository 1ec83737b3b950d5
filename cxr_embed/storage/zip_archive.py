"""Zip archives: their directory, and one member by one range read.

Python's `zipfile` reads the directory (APPNOTE.TXT 4.3.12, Zip64 included). It is not used to read
members, since it reads a member's header and its data in several small reads, each of which is a
request in a bucket.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from cxr_embed import file_types
from cxr_embed.errors import ImageRejected
from cxr_embed.storage.archive_members import (
    DAMAGED,
    ENCRYPTED,
    UNSAFE,
    UNSUPPORTED,
    Member,
    ReadRange,
    cleaned,
    read_pieces,
    refused,
)
from cxr_embed.storage.files import START_BYTES, Admit, BadMember, FileTooLarge
from cxr_embed.storage.range_file import RangeFile

KIND = "zip"
MAGIC = (b"PK\x03\x04", b"PK\x05\x06")

# APPNOTE.TXT 4.3.7, and the bits of 4.4.4.
_LOCAL_HEADER = struct.Struct("<4s5HL2L2H")
_ENCRYPTED, _PATCH, _UTF8 = 0x1, 0x20, 0x800
_STORED, _DEFLATED = 0, 8

# A local header may have more extra fields than the directory has.
_MORE_EXTRA = 64

# Read without a look at the first bytes when the caller gives no limit.
_LARGEST = 2 << 30


class _Location(NamedTuple):
    """Where a member lies: `head` is its local header's likely size; sizes are in bytes."""

    offset: int
    head: int
    packed: int
    size: int
    method: int
    crc32: int

    @classmethod
    def parse(cls, text: str) -> _Location:
        return cls(*map(int, text.split(":")[1:]))

    def __str__(self) -> str:
        return ":".join([KIND, *map(str, self)])


def list_members(file: RangeFile) -> Iterator[Member]:
    """Yields the members, in the order of the directory, without folders.

    Raises:
        zipfile.BadZipFile: the directory is missing or damaged.
        OSError: the file cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        overlapping = _overlapping(infos, archive.start_dir)
        for info in infos:
            # Some programs on Windows write backslashes.
            raw = info.filename if "/" in info.filename else info.filename.replace("\\", "/")
            if raw.endswith("/") and not info.file_size:
                continue
            name, problem = cleaned(raw)
            yield Member(name, _locate(info, problem, info.header_offset in overlapping))


def _locate(info: zipfile.ZipInfo, problem: str, is_overlapping: bool) -> str:
    if problem:
        return refused(UNSAFE, problem)
    if info.create_system == 3 and stat.S_ISLNK(info.external_attr >> 16):
        return refused(UNSAFE, "a link")
    if is_overlapping:
        return refused(UNSAFE, "its data overlaps that of another member or of the directory")
    if info.flag_bits & _ENCRYPTED:
        return refused(ENCRYPTED, "the member is encrypted")
    if info.compress_type not in (_STORED, _DEFLATED) or info.flag_bits & _PATCH:
        name = zipfile.compressor_names.get(info.compress_type, "unknown")  # type: ignore[attr-defined]
        return refused(UNSUPPORTED, f"compression method {info.compress_type} ({name})")
    if info.compress_type == _STORED and info.compress_size != info.file_size:
        return refused(DAMAGED, "a stored member with two different sizes")
    head = _LOCAL_HEADER.size + len(info.filename.encode("utf-8", "replace")) + len(info.extra)
    return str(
        _Location(
            info.header_offset, head, info.compress_size, info.file_size, info.compress_type,
            info.CRC,
        )
    )  # fmt: skip


def _overlapping(infos: list[zipfile.ZipInfo], directory: int) -> set[int]:
    """Returns the header offsets of members that share bytes, as in zip bombs."""
    found = set()
    reached, last = 0, -1
    for offset, packed in sorted((info.header_offset, info.compress_size) for info in infos):
        end = offset + _LOCAL_HEADER.size + packed
        if offset < reached:
            found |= {last, offset}
        if offset < 0 or end > directory:
            found.add(offset)
        if end > reached:
            reached, last = end, offset
    return found


def read_member(
    read_range: ReadRange, path: str, name: str, location: str, admit: Admit | None
) -> bytes:
    """Reads and verifies one member.

    Args:
        read_range: reads the archive.
        path: the member's address, for messages.
        name: the member's name.
        location: from `list_members`.
        admit: see `files.Admit`.

    Raises:
        BadMember: the member is damaged.
        FileTooLarge: it is larger than `admit` allows.
        OSError: the archive cannot be read.
    """
    at = _Location.parse(location)
    data = _Data(read_range, path, name, at)
    if at.method == _STORED:
        plain = read_pieces(data.read, path, at.size, admit)
    else:
        plain = _inflate(data, path, at, admit)
    if zlib.crc32(plain) != at.crc32:
        raise BadMember(path, DAMAGED, "the checksum does not match")
    return plain


class _Data:
    """The packed data of a member; the first read also reads and checks the local header."""

    def __init__(self, read_range: ReadRange, path: str, name: str, at: _Location) -> None:
        self._read_range, self._path, self._name, self._at = read_range, path, name, at
        self._start = 0

    def read(self, start: int, length: int) -> bytes:
        """Returns a part of the packed data."""
        if self._start:
            return self._read_range(self._start + start, length)
        at = self._at
        data = self._read_range(at.offset, at.head + _MORE_EXTRA + start + length)
        head = self._header_size(data)
        self._start = at.offset + head
        data = data[head + start : head + start + length]
        if len(data) < length:  # the local header is longer than expected
            data += self._read_range(self._start + start + len(data), length - len(data))
        return data

    def _header_size(self, data: bytes) -> int:
        size = _LOCAL_HEADER.size
        if len(data) < size or not data.startswith(MAGIC[0]):
            raise BadMember(self._path, DAMAGED, "there is no member where the directory says")
        fields = _LOCAL_HEADER.unpack_from(data)
        flags, method, name_size, extra_size = fields[2], fields[3], fields[9], fields[10]
        if flags & _ENCRYPTED:
            raise BadMember(self._path, ENCRYPTED, "the member is encrypted")
        raw = data[size : size + name_size].decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        raw = raw if "/" in raw else raw.replace("\\", "/")
        if method != self._at.method or (raw.isascii() and cleaned(raw)[0] != self._name):
            raise BadMember(self._path, DAMAGED, "its header and the directory do not agree")
        return size + name_size + extra_size


def _inflate(data: _Data, path: str, at: _Location, admit: Admit | None) -> bytes:
    def judge(packed: bytes) -> int:
        limit = _LARGEST
        if admit is not None:
            limit = admit(file_types.inflate_raw_start(packed, START_BYTES))
        if at.size > limit:
            raise FileTooLarge(path, at.size, limit)
        return at.packed

    packed = read_pieces(data.read, path, at.packed, judge)
    try:
        plain = bytes(file_types.inflate_raw(packed, at.size))
    except ImageRejected as error:
        raise BadMember(path, DAMAGED, error.detail) from error
    if len(plain) != at.size:
        raise BadMember(path, DAMAGED, f"{len(plain)} bytes, and {at.size} are expected")
    return plain
