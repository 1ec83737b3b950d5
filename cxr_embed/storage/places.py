"""Lists, reads and writes files by calling the module of each place, see `addresses`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from cxr_embed.storage.addresses import ARCHIVES, is_member, place_of
from cxr_embed.storage.files import Admit, Entry, StoredFile


def list_files(folder: str) -> Iterator[Entry]:
    """Yields every file below `folder`, including hidden files; nothing if it is missing.

    The files of a bucket are sorted by name and listed page by page. Local files have no particular
    order. Links to folders are followed once.

    Raises:
        OSError: a folder cannot be listed, which the error names; `FileNotFoundError` if a bucket
            does not exist.
    """
    return place_of(folder).list_files(folder)


def list_paths(folder: str) -> Iterator[str]:
    """Yields the paths of `list_files`; faster, since file sizes are not read.

    Raises:
        OSError: as `list_files`.
    """
    return place_of(folder).list_paths(folder)


def matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Yields the files that a glob selects: matching files, and all files below matching folders.

    The pattern matches as in Python's `glob` with `recursive=True`, also in buckets; see `globs`. A
    file is yielded several times if several of its folders match.

    Yields:
        The file's path, and its path below the matching folder, which is empty if the file itself
        matches.

    Raises:
        OSError: a folder that may contain matches cannot be listed.
    """
    return place_of(pattern).matches(pattern)


def exists(path: str) -> bool:
    """Whether a file or local folder exists."""
    return place_of(path).exists(path)


def size(path: str) -> int:
    """Returns a file's size in bytes.

    Raises:
        OSError: the service does not answer; `FileNotFoundError` if the file is missing.
    """
    return place_of(path).size(path)


def state(path: str) -> str:
    """Returns a text that changes if a file does: its size with its modification time or tag.

    Raises:
        OSError: as `size`.
    """
    return place_of(path).state(path)


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: the file cannot be read; `FileNotFoundError` if it is missing.
    """
    return place_of(path).read_bytes(path)


def read_file(path: str, admit: Admit | None = None, location: str = "") -> StoredFile:
    """Reads a file with a size limit that depends on its first bytes.

    In a bucket this is one request, which is retried if the response breaks off or its checksum
    does not match.

    Args:
        path: the file.
        admit: receives the first bytes and returns the maximum size in bytes to read, or raises to
            reject the file before the rest is read. It may be called more than once.
        location: where a member lies in its archive, if a listing said so; otherwise the archive
            is listed first.

    Returns:
        The content and its CRC-32C.

    Raises:
        BadMember: a member of an archive is damaged, encrypted, unsafe, or not supported.
        FileTooLarge: the file is larger than `admit` allows. Not more than the limit was held in
            memory.
        PlaceUnavailable: the service did not answer.
        OSError: the file cannot be read or is not a regular file.
        Exception: any exception of `admit`, unchanged.
    """
    if location:
        return ARCHIVES.read_member(path, location, admit)
    return place_of(path).read_file(path, admit)


def reading_order(paths: Sequence[str]) -> tuple[list[str], bool]:
    """Returns paths of one place in the order in which they are read fastest.

    Returns:
        The paths, and whether they have to be read one after the other, as the members of a
        compressed archive.
    """
    return ARCHIVES.reading_order(paths) if is_member(paths[0]) else (list(paths), False)


def read_range(path: str, start: int, length: int) -> bytes:
    """Reads a part of a file in one request.

    Args:
        path: the file.
        start: number of bytes before the part, less than the file's size.
        length: of the part, in bytes; less is returned only if the file ends there.

    Raises:
        OSError: as `read_file`.
    """
    return place_of(path).read_range(path, start, length) if length > 0 else b""


def download(path: str, target: Path, tag: str = "") -> None:
    """Copies a file of any size to a local one; what breaks off is taken up where it broke off.

    Args:
        path: the file.
        target: the local file, which is replaced if it exists.
        tag: the `Entry.tag` that the file had in a listing; a file with another tag is an error.

    Raises:
        OSError: the file cannot be read, has changed, or does not match its checksum.
    """
    place_of(path).download(path, target, tag)


class _Enough(Exception):
    """Ends a read after the first bytes, which are its argument."""


def read_start(path: str) -> bytes:
    """Returns a file's first bytes, at most `files.START_BYTES`.

    Raises:
        OSError: as `read_file`.
    """

    def stop(start: bytes) -> int:
        raise _Enough(start)

    try:
        return read_file(path, stop).data
    except _Enough as enough:
        start: bytes = enough.args[0]
        return start


def write_whole(path: str, data: bytes, *, replace: bool = False) -> None:
    """Writes a file atomically and creates its folder if missing.

    Args:
        path: the file.
        data: the content.
        replace: whether to replace an existing object in a bucket. Without it, an object with
            other content is an error, and one with the same content is kept. An existing local
            file is always replaced.

    Raises:
        OtherContent: in a bucket, without `replace`: the object exists with other content.
        OSError: the file cannot be written. No partial file remains.
    """
    place_of(path).write_whole(path, data, replace=replace)


def open_whole(path: str, *, replace: bool = False) -> AbstractContextManager[IO[bytes]]:
    """Opens a file that is written piece by piece and appears atomically at the end.

    It is meant for files that do not fit in memory. The written content can be read back before
    the context ends.

    Args:
        path: the file.
        replace: as for `write_whole`.

    Raises:
        OSError: as `write_whole`.
    """
    return place_of(path).open_whole(path, replace=replace)


def remove(path: str) -> None:
    """Removes a file; does nothing if it is missing."""
    place_of(path).remove(path)


def why_not_writable(folder: str) -> str | None:
    """Returns why files cannot be written below `folder`, or None; writes nothing."""
    try:
        return place_of(folder).why_not_writable(folder)
    except OSError as error:
        return str(error)
