"""Reads, writes and lists files in local file systems."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from cxr_embed.storage import whole_files
from cxr_embed.storage.files import START_BYTES, Admit, Entry, FileTooLarge, StoredFile
from cxr_embed.storage.globs import Glob, Progress, fixed_folder

# Device and inode, which identify a folder independently of its path.
_Identity = tuple[int, int]


has_ports = False
only_images = False


def missing_extra() -> str | None:
    """Returns None: local files need no other package."""
    return None


def check_name(path: str) -> str | None:
    """Returns None, since any text is a valid local path."""
    del path
    return None


def list_files(folder: str) -> Iterator[Entry]:
    """Yields every file below `folder`; see `places.list_files`."""
    for below, entries in _list_folders(folder):
        for entry in entries:
            yield Entry(f"{below}{entry.name}", _size(entry))


def list_paths(folder: str) -> Iterator[str]:
    """Yields the paths of `list_files` without reading each file's size."""
    for below, entries in _list_folders(folder):
        yield from (f"{below}{entry.name}" for entry in entries)


def _list_folders(folder: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yields each folder's path below the first one, with a slash at its end, and its files.

    `os.walk` is not used, since it silently omits folders that cannot be listed and discards the
    file types that a listing contains.
    """
    seen: set[_Identity] = set()
    waiting = [(folder, "")]
    while waiting:
        directory, below = waiting.pop()
        try:
            identity = _identity(directory)
            if identity in seen:  # a link to a parent, or a second link to the same folder
                continue
            entries = _scan(directory)
        except (FileNotFoundError, NotADirectoryError):
            if directory == folder:  # the listed folder itself is missing
                return
            raise
        seen.add(identity)
        files = []
        for entry in entries:
            if _is_folder(entry):
                waiting.append((entry.path, f"{below}{entry.name}/"))
            else:
                files.append(entry)
        yield below, files


def _identity(folder: str) -> _Identity:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """Lists one folder completely.

    Raises:
        OSError: the folder cannot be listed; `filename` is the folder.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        # An error in the middle of a listing may not contain the folder.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), folder) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a broken link, which raises an error when it is opened
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a broken link, which raises an error when it is opened
        return 0


def matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Yields the files that a glob selects; see `places.matches`."""
    base = fixed_folder(pattern)
    glob = Glob(pattern[len(base) :])
    yield from _descend(base, glob, glob.start(), ())


def _descend(
    folder: str, glob: Glob, progress: Progress, above: tuple[_Identity, ...]
) -> Iterator[tuple[str, str]]:
    """Searches `folder`, which ends with a slash, or is empty for the current folder."""
    if glob.is_match(progress):
        for below in list_paths(folder or "."):
            yield f"{folder}{below}", below
    try:
        identity = _identity(folder or ".")
        names = _names(folder, glob, progress)
    except (FileNotFoundError, NotADirectoryError):
        if above:
            raise
        return
    if identity in above:  # a link to a parent
        return
    for name, is_folder in names:
        if not is_folder:
            if glob.is_file(progress, name):
                yield f"{folder}{name}", ""
        elif after := glob.step(progress, name):
            yield from _descend(f"{folder}{name}/", glob, after, (*above, identity))


def _names(folder: str, glob: Glob, progress: Progress) -> list[tuple[str, bool]]:
    """Returns the names that may match, and whether each is a folder."""
    names = glob.next_names(progress)
    if names is None:
        return [(entry.name, _is_folder(entry)) for entry in _scan(folder or ".")]
    found = []
    # A folder without list permission can be searched if the pattern has the names.
    for name in names:
        path = Path(f"{folder}{name}")
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.append((name, path.is_dir()))
    return found


def exists(path: str) -> bool:
    """Whether a file or folder exists."""
    return Path(path).exists()


def size(path: str) -> int:
    """Returns a file's size in bytes."""
    return Path(path).stat().st_size


def state(path: str) -> str:
    """Returns a file's size and modification time."""
    status = os.stat(path)  # noqa: PTH116  several times as fast as pathlib's
    return f"{status.st_size}/{status.st_mtime_ns}"


def read_bytes(path: str) -> bytes:
    """Reads a whole file or pipe."""
    return Path(path).read_bytes()


def read_file(path: str, admit: Admit | None = None) -> StoredFile:
    """Reads a regular file; see `places.read_file`."""
    try:
        # Without the flag, opening a pipe blocks until it has a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL, or a character that the file system cannot encode
        raise OSError(errno.EINVAL, f"not a path: {error}", path) from error
    with os.fdopen(handle, "rb", buffering=0) as file:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        limit = None
        if admit is not None:
            limit = admit(file.read(START_BYTES))
            file.seek(0)
            if status.st_size > limit:
                raise FileTooLarge(path, status.st_size, limit)
        # The file may have grown since `fstat`, and some file systems report no size.
        pieces, size, wanted = [], 0, status.st_size + 1
        while piece := file.read(wanted):
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size > limit:
                raise FileTooLarge(path, None, limit)
            wanted = max(status.st_size + 1 - size, START_BYTES)
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return StoredFile.of(data)


def read_range(path: str, start: int, length: int) -> bytes:
    """Reads a part of a file; see `places.read_range`."""
    with Path(path).open("rb", buffering=0) as file:
        file.seek(start)
        pieces = []
        while length and (piece := file.read(length)):
            pieces.append(piece)
            length -= len(piece)
    return b"".join(pieces)


def download(path: str, target: Path, tag: str) -> None:
    """Copies a file; see `places.download`."""
    del tag
    shutil.copyfile(path, target)


def write_whole(path: str, data: bytes, *, replace: bool = True) -> None:
    """Writes a file; see `places.write_whole`."""
    del replace
    whole_files.write_whole(path, data)


def open_whole(path: str, *, replace: bool = True) -> AbstractContextManager[IO[bytes]]:
    """Opens a file for writing; see `places.open_whole`."""
    del replace
    return whole_files.open_whole(path)


def remove(path: str) -> None:
    """Removes a file; does nothing if it is missing."""
    Path(path).unlink(missing_ok=True)


def why_not_writable(folder: str) -> str | None:
    """Returns why files cannot be written below `folder`, or None; writes nothing."""
    nearest = Path(folder).absolute()
    while not nearest.exists() and nearest != nearest.parent:
        if nearest.is_symlink():
            return f"{nearest} is a broken link"
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"no permission to write in {nearest}"
    return None
