"""The registry of storage places: checks addresses and calls the module of each place.

To add a place, write a module with a class that inherits from `files.Place` (or, for a service that
stores objects in buckets, from `object_store.ObjectStore`) and add an instance of it to `PLACES`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from cxr_embed.errors import UsageError
from cxr_embed.storage import azure, dicomweb, dicomweb_address, gcs, local, s3
from cxr_embed.storage.archives import Archives
from cxr_embed.storage.files import Admit, Entry, Place, StoredFile

# The place of each scheme, the part of an address before `://`.
PLACES: dict[str, Place] = {
    "gs": gcs.GoogleCloudStorage(),
    "s3": s3.S3(),
    "az": azure.AzureBlobStorage(),
    **dict.fromkeys(dicomweb_address.SCHEMES, dicomweb.DicomWeb()),
}

# A single letter is a Windows drive. A path that begins with a dot or a slash is local.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)(.*)", re.DOTALL)


def check_place(path: str, flag: str) -> None:
    """Checks that a path or an address is valid, before anything is read or written.

    Args:
        path: the path from the user.
        flag: the flag of the path, such as `--input_path`; the message begins with it.

    Raises:
        UsageError: the path contains a NUL, has an unsupported scheme, has an invalid bucket name,
            or contains a user name or password, which the message does not repeat.
    """
    check_address(path, flag)
    if why := _place(path).check_name(path):
        raise UsageError(f"{flag} {path}: {why}")


def check_address(path: str, flag: str) -> None:
    """Does the checks of `check_place` except that of the bucket's name.

    It is used for the lines of a list, where an invalid bucket name is a failure of one image.

    Args:
        path: the path from the user.
        flag: the flag of the path.

    Raises:
        UsageError: see `check_place`.
    """
    if "\0" in path:
        raise UsageError(f"{flag} contains a NUL, which is not valid in a path")
    address = _ADDRESS.fullmatch(path)
    if address is None:
        return
    scheme, authority, rest = address.groups()
    if _has_secret(scheme, authority, rest):
        raise UsageError(
            f"{flag}: this {scheme}:// address contains a user name or password: remove it; "
            "credentials are taken from the environment"
        )
    if scheme in dicomweb_address.SCHEMES and ("?" in path or "#" in path):
        raise UsageError(
            f"{flag}: this {scheme}:// address contains a query: pass it as --dicomweb_query"
        )
    if scheme not in PLACES:
        secret = any(sign in authority + rest for sign in "@:?#")
        shown = f"{scheme}://…" if secret else path
        kinds = ", ".join(f"{known}://" for known in PLACES)
        raise UsageError(
            f"{flag} {shown}: {scheme}:// is not supported; pass a local path or {kinds}"
        )
    if extra := _missing_extra(scheme):
        raise UsageError(
            f"{flag} {path}: {scheme}:// needs other packages: pip install 'cxr-embed[{extra}]'"
        )


def _has_secret(scheme: str, authority: str, rest: str) -> bool:
    """Whether an address contains a user name or a password, which may contain a slash."""
    if "@" in authority or scheme not in PLACES:
        return "@" in authority
    if PLACES[scheme].has_ports:
        _, colon, port = authority.partition(":")
        return "@" in rest or (bool(colon) and not port.isdigit())
    return ":" in authority


@functools.cache  # a list of images asks once a line
def _missing_extra(scheme: str) -> str | None:
    return PLACES[scheme].missing_extra()


def is_remote(path: str) -> bool:
    """Whether `path` is an address of one of `PLACES`, not a local path."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in PLACES


def _place(path: str) -> Place:
    """Returns the module for a path.

    Raises:
        OSError: the scheme is not supported.
    """
    if ARCHIVES.holds(path):
        return ARCHIVES
    return _place_of_file(path)


def _place_of_file(path: str) -> Place:
    if is_remote(path):
        return PLACES[path.partition("://")[0]]
    try:
        check_address(path, "path")
    except UsageError as error:
        raise OSError(str(error)) from None
    return local


# The members of archives in any place.
ARCHIVES = Archives(_place_of_file)


def is_member(path: str) -> bool:
    """Whether `path` is the address of a member of an archive, see `cxr_embed.members`."""
    return ARCHIVES.holds(path)


def join(folder: str, *parts: str) -> str:
    """Joins path parts with the separator that `folder` uses."""
    if is_remote(folder):
        return "/".join([folder.rstrip("/"), *parts])
    return str(Path(folder, *parts))


def start_of(folder: str) -> str:
    """Returns the prefix that `join` adds to a path, to join many paths by string addition."""
    return join(folder, "_")[:-1]


def list_files(folder: str) -> Iterator[Entry]:
    """Yields every file below `folder`, including hidden files; nothing if it is missing.

    The files of a bucket are sorted by name and listed page by page. Local files have no particular
    order. Links to folders are followed once.

    Raises:
        OSError: a folder cannot be listed, which the error names; `FileNotFoundError` if a bucket
            does not exist.
    """
    return _place(folder).list_files(folder)


def list_paths(folder: str) -> Iterator[str]:
    """Yields the paths of `list_files`; faster, since file sizes are not read.

    Raises:
        OSError: as `list_files`.
    """
    return _place(folder).list_paths(folder)


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
    return _place(pattern).matches(pattern)


def exists(path: str) -> bool:
    """Whether a file or local folder exists."""
    return _place(path).exists(path)


def size(path: str) -> int:
    """Returns a file's size in bytes.

    Raises:
        OSError: the service does not answer; `FileNotFoundError` if the file is missing.
    """
    return _place(path).size(path)


def state(path: str) -> str:
    """Returns a text that changes if a file does: its size with its modification time or tag.

    Raises:
        OSError: as `size`.
    """
    return _place(path).state(path)


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: the file cannot be read; `FileNotFoundError` if it is missing.
    """
    return _place(path).read_bytes(path)


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
    return _place(path).read_file(path, admit)


def read_range(path: str, start: int, length: int) -> bytes:
    """Reads a part of a file in one request.

    Args:
        path: the file.
        start: number of bytes before the part, less than the file's size.
        length: of the part, in bytes; less is returned only if the file ends there.

    Raises:
        OSError: as `read_file`.
    """
    return _place(path).read_range(path, start, length) if length > 0 else b""


def download(path: str, target: Path, tag: str = "") -> None:
    """Copies a file of any size to a local one; what breaks off is taken up where it broke off.

    Args:
        path: the file.
        target: the local file, which is replaced if it exists.
        tag: the `Entry.tag` that the file had in a listing; a file with another tag is an error.

    Raises:
        OSError: the file cannot be read, has changed, or does not match its checksum.
    """
    _place(path).download(path, target, tag)


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
    _place(path).write_whole(path, data, replace=replace)


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
    return _place(path).open_whole(path, replace=replace)


def remove(path: str) -> None:
    """Removes a file; does nothing if it is missing."""
    _place(path).remove(path)


def why_not_writable(folder: str) -> str | None:
    """Returns why files cannot be written below `folder`, or None; writes nothing."""
    try:
        return _place(folder).why_not_writable(folder)
    except OSError as error:
        return str(error)
