"""Which places there are, what an address of each looks like, and the way to each one's module.

A further place is a module with the functions of `files.Place`, and one line in `PLACES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from cxr_embed.errors import UsageError
from cxr_embed.storage import gcs, local
from cxr_embed.storage.files import Admit, Entry, Place, StoredFile

# What an address begins with, before `://`, and who reads and writes there.
PLACES: dict[str, Place] = {"gs": gcs}

# One letter is a drive of Windows. A path that begins with a dot or a slash is local.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)(.*)", re.DOTALL)


# How this process reaches storage services; pickles on its way to workers.
Settings = gcs.GcsSettings


def settings() -> Settings:
    """Returns how this process reaches storage services."""
    return gcs.settings()


def configure(settings: Settings) -> None:
    """Sets how this process reaches storage services."""
    gcs.configure(settings)


def check_place(path: str, flag: str) -> None:
    """Refuses what cannot be a path or an address, before anything is read or written.

    Args:
        path: as the user gave it.
        flag: what it was given with, `--input_path` for example; the message begins with it.

    Raises:
        UsageError: it holds a NUL, is an address of a kind that is not supported, holds a user
            name or password, which the message does not repeat, or names no possible bucket.
    """
    check_address(path, flag)
    if why := _place(path).check_name(path):
        raise UsageError(f"{flag} {path}: {why}")


def check_address(path: str, flag: str) -> None:
    """Does what `check_place` does, but for names that only this one path is to blame for.

    For the lines of a list, where a bucket that cannot exist is that image's fault.

    Args:
        path: as the user gave it.
        flag: what it was given with.

    Raises:
        UsageError: see `check_place`.
    """
    if "\0" in path:
        raise UsageError(f"{flag} holds a NUL, which no path can")
    address = _ADDRESS.fullmatch(path)
    if address is None:
        return
    scheme, authority, rest = address.groups()
    # No bucket's name has a colon: before a password with a slash in it, it shows nevertheless.
    if "@" in authority or (scheme in PLACES and ":" in authority):
        raise UsageError(
            f"{flag}: this {scheme}:// address holds a user name or password: leave it out; "
            "credentials come from the environment"
        )
    if scheme not in PLACES:
        secret = any(sign in authority + rest for sign in "@:?#")
        shown = f"{scheme}://…" if secret else path
        kinds = ", ".join(f"{known}://" for known in PLACES)
        raise UsageError(
            f"{flag} {shown}: {scheme}:// is not supported; it can be a local path or {kinds}"
        )


def is_remote(path: str) -> bool:
    """Whether `path` is an address of one of `PLACES`, not a local path."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in PLACES


def _place(path: str) -> Place:
    """Returns the module for a path.

    Raises:
        OSError: it is an address of a kind that is not supported.
    """
    if is_remote(path):
        return PLACES[path.partition("://")[0]]
    try:
        check_address(path, "path")
    except UsageError as error:
        raise OSError(str(error)) from None
    return local


def join(folder: str, *parts: str) -> str:
    """Joins path parts with the separator that `folder` uses."""
    if is_remote(folder):
        return "/".join([folder.rstrip("/"), *parts])
    return str(Path(folder, *parts))


def start_of(folder: str) -> str:
    """Returns what `join` puts before a path: for many paths, joined by adding strings."""
    return join(folder, "_")[:-1]


def list_files(folder: str) -> Iterator[Entry]:
    """Yields every file below `folder`; nothing where it is missing.

    A bucket is listed page by page and sorted by name; a disk is in no particular order. Links to
    folders are followed once. Hidden files are listed, too.

    Raises:
        OSError: a part of it cannot be listed, which the error names; `FileNotFoundError` where a
            bucket does not exist.
    """
    return _place(folder).list_files(folder)


def list_paths(folder: str) -> Iterator[str]:
    """Yields the paths that `list_files` does, faster: no file is asked for its size.

    Raises:
        OSError: as `list_files`.
    """
    return _place(folder).list_paths(folder)


def matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Yields the files that a glob leads to: those that match, and all below folders that do.

    What matches is what Python's `glob` finds with `recursive=True`, in buckets, too; see `globs`.
    A file comes several times where several folders above it match.

    Yields:
        The file's path, as `pattern` begins; its path below the folder that matches, or nothing
        where the file itself does.

    Raises:
        OSError: a folder that may hold matches cannot be listed.
    """
    return _place(pattern).matches(pattern)


def exists(path: str) -> bool:
    """Whether a file or local folder is there."""
    return _place(path).exists(path)


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: it cannot be read; `FileNotFoundError` where it is missing.
    """
    return _place(path).read_bytes(path)


def read_file(path: str, admit: Admit | None = None) -> StoredFile:
    """Reads a file that may be anything: too large, not ordinary, no image.

    In a bucket it is one request, tried again where an answer breaks off or fails its checksum.

    Args:
        path: of the file.
        admit: gets its first bytes, returns the largest size in bytes that is worth reading, and
            may raise to refuse it; then the rest is not read. It may be called more than once.

    Returns:
        The content and its CRC-32C.

    Raises:
        FileTooLarge: it is larger than `admit` allows. No more than that was held in memory.
        PlaceUnavailable: the service did not answer.
        OSError: it cannot be read, or is no ordinary file.
        Exception: what `admit` raised, unchanged.
    """
    return _place(path).read_file(path, admit)


class _Enough(Exception):
    """The first bytes of a file, when no more are wanted."""


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
    """Writes a file that appears whole or not at all, making its folder if missing.

    Args:
        path: of the file.
        data: its content.
        replace: for buckets: whether a file with other content may stand there. Without it, that
            is an error; the same content is fine. A local file replaces what stands either way.

    Raises:
        OtherContent: in a bucket, without `replace`: another run wrote other bytes.
        OSError: it cannot be written; nothing is left behind.
    """
    _place(path).write_whole(path, data, replace=replace)


def open_whole(path: str, *, replace: bool = False) -> AbstractContextManager[IO[bytes]]:
    """Opens a file to be written piece by piece that appears whole or not at all.

    For files too large for memory; what is written can be read back before the context ends.

    Args:
        path: of the file.
        replace: as for `write_whole`.

    Raises:
        OSError: as `write_whole`.
    """
    return _place(path).open_whole(path, replace=replace)


def remove(path: str) -> None:
    """Removes one file; one that is missing is fine."""
    _place(path).remove(path)


def why_not_writable(folder: str) -> str | None:
    """Returns why no file can be written below `folder`, without writing one; None if it can."""
    try:
        return _place(folder).why_not_writable(folder)
    except OSError as error:
        return str(error)
