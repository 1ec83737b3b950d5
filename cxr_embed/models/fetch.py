"""Models in gs:// buckets, fetched once a machine into the user's cache.

TensorFlow's own gs:// support is one more client with rules of its own, so models are loaded from
disk only. Every process that loads one fetches it by itself, the launching one and each worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from cxr_embed import storage
from cxr_embed.errors import UsageError
from cxr_embed.storage import gcs
from cxr_embed.storage.cache import cache_folder

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

_FILES_AT_A_TIME = 4


def revision_of(path: str) -> str:
    """Returns what changes whenever a file of a model in a bucket does.

    It takes one listing, no content: names, sizes and checksums.

    Raises:
        UsageError: there is nothing at that path, or it cannot be listed.
    """
    return _revision(_files(path))


def is_here(revision: str) -> bool:
    """Whether a model has been fetched on this machine already."""
    return _folder(revision).is_dir()


def local_folder(path: str, revision: str) -> str:
    """Returns a local copy of a model, making it at the first call on this machine.

    Args:
        path: the model's folder, gs://.
        revision: what `revision_of` gave where the run was started.

    Raises:
        UsageError: it cannot be fetched, or is another one by now.
    """
    folder = _folder(revision)
    if folder.is_dir():
        return str(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _fetch(path, revision, folder)
    except OSError as error:
        raise UsageError(f"--model_path cannot be fetched: {error}") from error
    return str(folder)


def _folder(revision: str) -> Path:
    return cache_folder() / "models" / f"bucket-{revision}"


def _fetch(path: str, revision: str, folder: Path) -> None:
    """Fills a folder that appears whole or not at all. Only the lock's holder is here."""
    files = _files(path)
    if _revision(files) != revision:
        raise UsageError(
            f"--model_path {path} has changed since the run was started: start it again"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process

    def fetch(entry: storage.Entry) -> None:
        target = partial / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        gcs.download(storage.join(path, entry.path), target, entry.crc32c)

    with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        list(pool.map(fetch, files))
    partial.rename(folder)


def _files(path: str) -> list[storage.Entry]:
    try:
        files = sorted(storage.list_files(path))
    except OSError as error:
        raise UsageError(f"--model_path cannot be fetched: {error}") from error
    if not files:
        raise UsageError(f"--model_path cannot be fetched: {path} holds no files")
    for entry in files:
        parts = PurePosixPath(entry.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise UsageError(f"--model_path {path} holds {entry.path}, which no disk can")
    return files


def _revision(files: list[storage.Entry]) -> str:
    lines = "".join(f"{entry.path}\0{entry.size}\0{entry.crc32c}\n" for entry in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:24]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that other processes on this machine wait for and that dies with its holder."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
