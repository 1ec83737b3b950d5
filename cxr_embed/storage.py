"""One small surface over local folders and gs:// buckets.

Everything else in the package handles paths as strings and calls these functions; `gcs` does what
is particular to buckets.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import re
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from cxr_embed import gcs

try:
    import fcntl
except ImportError:  # no such locks on this system: its leftovers are not recognised
    fcntl = None  # type: ignore[assignment]

# Files being written. The name is short, so that it fits wherever the final one does.
_TEMPORARY_PREFIX = ".cxr-embed-"
_TEMPORARY_SUFFIX = ".tmp"

_READS_AT_A_TIME = 16

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


class Entry(NamedTuple):
    """A file as a listing shows it.

    Attributes:
        path: below the listed folder.
        size: in bytes.
        crc32c: its CRC-32C in base64, which buckets know and disks do not.
    """

    path: str
    size: int
    crc32c: str = ""


def is_remote(path: str) -> bool:
    """Whether `path` is in a bucket."""
    return path.startswith(gcs.PREFIX)


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
        OSError: a bucket cannot be listed; `FileNotFoundError` where it does not exist.
    """
    if is_remote(folder):
        yield from _list_bucket(folder)
        return
    for directory, below, names in _walk(folder):
        with os.scandir(directory) as entries:
            sizes = {e.name: _size(e) for e in entries if not e.is_dir()}
        for name in names:
            yield Entry(f"{below}{name}", sizes.get(name, 0))


def list_paths(folder: str) -> Iterator[str]:
    """Yields the paths that `list_files` does, faster: no file is asked for its size."""
    if is_remote(folder):
        yield from (entry.path for entry in _list_bucket(folder))
        return
    for _, below, names in _walk(folder):
        yield from (f"{below}{name}" for name in names)


def _walk(folder: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yields each folder, its path below the first one up to the last slash, its files' names."""
    seen: set[tuple[int, int]] = set()
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        status = Path(directory).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below = os.path.relpath(directory, folder)
        yield directory, "" if below == "." else f"{below}/", names


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere: whoever opens it will say so
        return 0


def expand(pattern: str) -> Iterator[str]:
    """Yields the files and local folders that match a glob; `**` spans folders."""
    if not is_remote(pattern):
        import glob

        # pathlib would normalise the pattern, and paths are to stay as they were given.
        yield from glob.iglob(pattern, recursive=True)  # noqa: PTH207
        return
    bucket, rest = gcs.split(pattern)
    start = re.split(r"[*?\[]", rest, maxsplit=1)[0]
    matches = re.compile(_glob_to_regex(rest))
    for found in gcs.list_objects(bucket, start, pattern):
        if matches.fullmatch(found.name):
            yield f"{gcs.PREFIX}{bucket}/{found.name}"


def _glob_to_regex(pattern: str) -> str:
    """`*` stays within one folder and `**` spans several, as in the local glob."""
    parts = re.split(r"(\*\*/?)", pattern)
    translated = (".*" if part.startswith("**") else _single_level(part) for part in parts if part)
    return "".join(translated)


def _single_level(part: str) -> str:
    regex = fnmatch.translate(part)
    return regex.removeprefix("(?s:").removesuffix(r")\Z").replace(".*", "[^/]*")


def exists(path: str) -> bool:
    """Whether a file or local folder is there."""
    if is_remote(path):
        return gcs.exists(path)
    return Path(path).exists()


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: it cannot be read; `FileNotFoundError` where it is missing.
    """
    return gcs.read(path) if is_remote(path) else Path(path).read_bytes()


def in_parallel(
    function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]
) -> Iterator[_Result]:
    """Yields `function` of each argument, in order, several at a time.

    For reads, whose waiting overlaps. Only a few results are ever held that nobody has taken.
    """
    remaining = iter(arguments)
    with ThreadPoolExecutor(_READS_AT_A_TIME) as pool:
        waiting = deque(
            pool.submit(function, each)
            for each in itertools.islice(remaining, 2 * _READS_AT_A_TIME)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(
                    pool.submit(function, each) for each in itertools.islice(remaining, 1)
                )
                yield result
        finally:
            for each in waiting:
                each.cancel()


def write_whole(path: str, data: bytes, *, replace: bool = False) -> None:
    """Writes a file that appears whole or not at all, making its folder if missing.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if is_remote(path):
        gcs.write(path, data)
        return
    target = Path(path)
    for attempt in range(3):
        temporary = target.parent / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"
        try:
            _write_and_rename(temporary, target, data)
            return
        except FileNotFoundError:
            # No folder yet; or another run has just taken the file for a dead run's leftover.
            if attempt == 2:
                raise
            target.parent.mkdir(parents=True, exist_ok=True)


def _write_and_rename(temporary: Path, target: Path, data: bytes) -> None:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            # The lock lives as long as the writer, so a killed writer's file is recognised.
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
            rest = memoryview(data)
            while rest:  # a disk that is filling up takes a part
                rest = rest[file.write(rest) :]
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def open_whole(path: str) -> Iterator[IO[bytes]]:
    """Opens a file to be written piece by piece that appears whole or not at all.

    For files too large for memory; what is written can be read back before the context ends.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if is_remote(path):
        with tempfile.TemporaryFile() as file:
            yield file
            gcs.write_file(path, file)
        return
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"
    try:
        with temporary.open("x+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `write_whole` uses on the way."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


def remove_if_abandoned(path: str) -> bool:
    """Removes a temporary file whose writer is dead; returns whether it did."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(path).unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Removes one file; one that is missing is fine."""
    if is_remote(path):
        with contextlib.suppress(FileNotFoundError):
            gcs.remove(path)
        return
    Path(path).unlink(missing_ok=True)


def why_not_writable(folder: str) -> str | None:
    """Returns why no file can be written below `folder`, without writing one; None if it can."""
    if is_remote(folder):
        return _why_not_listable(folder)
    nearest = Path(folder).absolute()
    while not nearest.exists() and nearest != nearest.parent:
        if nearest.is_symlink():
            return f"{nearest} is a link to nowhere"
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"no permission to write in {nearest}"
    return None


def _why_not_listable(folder: str) -> str | None:
    """A bucket is asked for one name: whether it may be written to shows when the run starts."""
    try:
        next(_list_bucket(folder), None)
    except OSError as error:
        return str(error)
    return None


def _list_bucket(folder: str) -> Iterator[Entry]:
    bucket, name = gcs.split(folder)
    prefix = name.rstrip("/") + "/" if name else ""
    for found in gcs.list_objects(bucket, prefix, folder):
        if not found.name.endswith("/"):  # the console's empty "folder" objects
            yield Entry(found.name[len(prefix) :], found.size, found.crc32c)


class FileTooLarge(OSError):
    pass


class StoredFile(NamedTuple):
    data: bytes
    crc32c: str


def read_file(path, admit=None):
    import google_crc32c

    data = read_bytes(path)
    if admit:
        limit = admit(data[:65536])
        if len(data) > limit:
            e = FileTooLarge("too large")
            e.limit = limit
            raise e
    return StoredFile(data, f"{google_crc32c.value(data):08x}")


Settings = gcs.GcsSettings
settings = gcs.settings
configure = gcs.configure


def check_place(path, flag):
    pass
