"""One small surface over local folders and gs:// buckets.

Everything else in the package handles paths as strings and calls these functions.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

try:
    import fcntl
except ImportError:  # no such locks on this system: its leftovers are not recognised
    fcntl = None  # type: ignore[assignment]

GCS_PREFIX = "gs://"

# Files being written. The name is short, so that it fits wherever the final one does.
_TEMPORARY_PREFIX = ".cxr-embed-"
_TEMPORARY_SUFFIX = ".tmp"

_COPIES_AT_A_TIME = 4


class Entry(NamedTuple):
    """A file as a listing shows it: its path below the listed folder, and its size in bytes."""

    path: str
    size: int


def is_remote(path: str) -> bool:
    """Whether `path` is in a bucket."""
    return path.startswith(GCS_PREFIX)


def join(folder: str, *parts: str) -> str:
    """Joins path parts with the separator that `folder` uses."""
    if is_remote(folder):
        return "/".join([folder.rstrip("/"), *parts])
    return str(Path(folder, *parts))


def list_files(folder: str) -> Iterator[Entry]:
    """Yields every file below `folder`, in no particular order; nothing where it is missing.

    Links to folders are followed once. Hidden files are listed, too.
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


def expand(pattern: str) -> list[str]:
    """Returns the files and local folders that match a glob; `**` spans folders."""
    if not is_remote(pattern):
        import glob

        # pathlib would normalise the pattern, and paths are to stay as they were given.
        return glob.glob(pattern, recursive=True)  # noqa: PTH207
    bucket, _, rest = pattern.removeprefix(GCS_PREFIX).partition("/")
    prefix = re.split(r"[*?\[]", rest, maxsplit=1)[0].rpartition("/")[0]
    root = f"{GCS_PREFIX}{bucket}/{prefix}".rstrip("/")
    matches = re.compile(_glob_to_regex(pattern))
    paths = (f"{root}/{entry.path}" for entry in _list_bucket(root))
    return [path for path in paths if matches.fullmatch(path)]


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
        return bool(_blob(path).exists())
    return Path(path).exists()


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
        OSError: it cannot be read; `FileNotFoundError` where it is missing.
    """
    if not is_remote(path):
        return Path(path).read_bytes()
    with _as_oserror(path):
        return bytes(_blob(path).download_as_bytes(checksum="auto"))


def write_whole(path: str, data: bytes) -> None:
    """Writes a file that appears whole or not at all, making its folder if missing.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if is_remote(path):
        with _as_oserror(path):
            _blob(path).upload_from_string(data, "application/octet-stream", checksum="crc32c")
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
            file.seek(0)
            with _as_oserror(path):
                _blob(path).upload_from_file(file, checksum="crc32c")
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


def copy_folder(source: str, target: str) -> None:
    """Copies all files below `source` to the local folder `target`.

    Raises:
        OSError: one of them cannot be read or written; `FileNotFoundError` where there is none.
    """
    entries = list(list_files(source))
    if not entries:
        raise FileNotFoundError(f"{source} holds no files")
    with ThreadPoolExecutor(_COPIES_AT_A_TIME) as pool:
        list(
            pool.map(
                lambda e: write_whole(join(target, e.path), read_bytes(join(source, e.path))),
                entries,
            )
        )


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
        with contextlib.suppress(FileNotFoundError), _as_oserror(path):
            _blob(path).delete()
        return
    Path(path).unlink(missing_ok=True)


def why_not_writable(folder: str) -> str | None:
    """Returns why no file can be written below `folder`, without writing one; None if it can."""
    if is_remote(folder):
        return None
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


@functools.cache
def _client() -> Any:
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    return storage.Client()


def _blob(path: str) -> Any:
    bucket, _, name = path.removeprefix(GCS_PREFIX).partition("/")
    return _client().bucket(bucket).blob(name)


def _list_bucket(folder: str) -> Iterator[Entry]:
    bucket, _, prefix = folder.removeprefix(GCS_PREFIX).partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    with _as_oserror(folder):
        pages = _client().list_blobs(bucket, prefix=prefix, fields="items(name,size),nextPageToken")
        for blob in pages:
            if not blob.name.endswith("/"):  # the console's empty "folder" objects
                yield Entry(str(PurePosixPath(blob.name[len(prefix) :])), blob.size or 0)


@contextlib.contextmanager
def _as_oserror(path: str) -> Iterator[None]:
    """Turns the client's many exceptions into the one that local files raise."""
    from google.api_core import exceptions

    try:
        yield
    except exceptions.NotFound as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except (exceptions.GoogleAPIError, ConnectionError) as error:
        raise OSError(f"{path}: {type(error).__name__}") from error
