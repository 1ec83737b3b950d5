"""Tar archives, plain or compressed with gzip: a list of their members, and one member.

A tar file has no directory: each member's header says where the next one begins. A plain tar is
listed by its headers alone and its members are read like those of a zip. What gzip has compressed
has to be decompressed from the start, once for the list and once for the members; see
`GzipReader`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from cxr_embed.storage.archive_members import (
    UNSAFE,
    UNSUPPORTED,
    Member,
    ReadRange,
    cleaned,
    read_pieces,
    refused,
)
from cxr_embed.storage.files import Admit
from cxr_embed.storage.range_file import RangeFile

PLAIN, COMPRESSED = "tar", "tgz"
GZIP_MAGIC = b"\x1f\x8b"

# A longer header is a hostile one: tarfile would hold it in memory.
LONGEST_HEADER = 1 << 20


def list_members(file: RangeFile, kind: str) -> Iterator[Member]:
    """Yields the members in the order of the archive, without folders.

    Args:
        file: the plain or decompressed archive.
        kind: `PLAIN` or `COMPRESSED`.

    Raises:
        tarfile.TarError: a header is damaged, or the archive ends too early.
        OSError: the file cannot be read.
    """
    with tarfile.TarFile(
        fileobj=file,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all
            if not info.isdir():
                name, problem = cleaned(info.name)
                yield Member(name, _locate(info, problem, kind))
        _require_end(file, archive.offset)


def _locate(info: tarfile.TarInfo, problem: str, kind: str) -> str:
    if problem:
        return refused(UNSAFE, problem)
    if info.issym() or info.islnk():
        return refused(UNSAFE, "a link")
    if info.isdev():
        return refused(UNSAFE, "a device or a pipe")
    if not info.isreg() or info.issparse():
        return refused(UNSUPPORTED, "a sparse file" if info.issparse() else "not a regular file")
    return f"{kind}:{info.offset_data}:{info.size}"


def _require_end(file: RangeFile, offset: int) -> None:
    """Raises ReadError unless a block of zeros ends the archive (POSIX.1 pax, ustar format).

    tarfile ends a list in silence where a header is damaged or the file was cut between members.
    """
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if any(block):
        raise tarfile.ReadError(f"the header at byte {offset} is damaged")
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends too early, without the mark of a complete archive")


def read_member(read_range: ReadRange, path: str, location: str, admit: Admit | None) -> bytes:
    """Reads one member.

    Args:
        read_range: reads the plain or decompressed archive.
        path: the member's address, for messages.
        location: from `list_members`.
        admit: see `files.Admit`.

    Raises:
        BadMember: the archive ends before the member does.
        FileTooLarge: the member is larger than `admit` allows.
        OSError: the archive cannot be read.
    """
    _, offset, size = location.split(":")
    begin = int(offset)
    return read_pieces(
        lambda start, length: read_range(begin + start, length), path, int(size), admit
    )
