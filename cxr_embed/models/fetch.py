"""Downloads models from buckets and the Hugging Face Hub, once per machine.

Models in buckets go into this program's cache, those on the Hub into huggingface_hub's own (see
`hub`). Models are loaded from local files only, since TensorFlow's own gs:// client has other
credentials and retries than this program's. The launcher and each worker call this module
independently.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from cxr_embed import storage
from cxr_embed.errors import NotFetched, UsageError
from cxr_embed.models import hub
from cxr_embed.storage.cache import cache_folder

try:
    import fcntl
except ImportError:  # this system has no file locks
    fcntl = None  # type: ignore[assignment]

_FILES_AT_A_TIME = 4


def is_remote(path: str) -> bool:
    """Whether a model's path is an address, not a local path."""
    return hub.is_address(path) or storage.is_remote(path)


def check_address(path: str) -> None:
    """Raises UsageError if --model_path is an address that cannot be one of a model."""
    if hub.is_address(path):
        hub.parse(path)
    else:
        storage.check_place(path, "--model_path")


def revision_of(path: str) -> str:
    """Returns what all workers must fetch: a commit of the Hub, or a hash of a bucket's listing.

    The hash is that of the names, sizes and checksums of the model's files. It needs one listing
    and reads no content.

    Raises:
        UsageError: the folder is empty or cannot be listed.
    """
    return hub.commit_of(path) if hub.is_address(path) else _revision(_files(path))


def pinned(path: str, commit: str) -> str:
    """Returns the address of a model on the Hub at one commit; other paths unchanged."""
    return hub.parse(path).at(commit) if commit and hub.is_address(path) else path


def is_here(path: str, revision: str, folders: Sequence[str] = ()) -> bool:
    """Whether this machine's cache contains a model; see `local_folder`."""
    if hub.is_address(path):
        return hub.is_here(path, revision, folders)
    return _folder(revision).is_dir()


def local_folder(path: str, revision: str, folders: Sequence[str] = ()) -> str:
    """Returns the folder of a local copy of a model; the first call on a machine downloads it.

    Args:
        path: the model's folder in a bucket, or its address on the Hub.
        revision: the result of `revision_of` in the launcher.
        folders: the folders below it that the model consists of; empty for all. From the Hub, only
            these are downloaded.

    Raises:
        UsageError: the model cannot be downloaded, or has changed since the launch.
    """
    if hub.is_address(path):
        return hub.local_copy(path, revision, folders)
    folder = _folder(revision)
    if folder.is_dir():
        return str(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _fetch(path, revision, folder)
    except OSError as error:
        raise NotFetched(f"--model_path cannot be fetched: {error}") from error
    return str(folder)


def _folder(revision: str) -> Path:
    return cache_folder() / "models" / f"bucket-{revision}"


def _fetch(path: str, revision: str, folder: Path) -> None:
    """Downloads a model into a folder that appears atomically. The caller holds the lock."""
    files = _files(path)
    if _revision(files) != revision:
        raise NotFetched(
            f"--model_path {path} has changed since the run was started: start it again"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process

    def fetch(entry: storage.Entry) -> None:
        target = partial / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.download(storage.join(path, entry.path), target, entry.tag)

    with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        list(pool.map(fetch, files))
    partial.rename(folder)


def _files(path: str) -> list[storage.Entry]:
    try:
        files = sorted(storage.list_files(path))
    except OSError as error:
        raise NotFetched(f"--model_path cannot be fetched: {error}") from error
    if not files:
        raise NotFetched(f"--model_path cannot be fetched: {path} holds no files")
    for entry in files:
        parts = PurePosixPath(entry.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise UsageError(f"--model_path {path} holds {entry.path}, which is no valid file path")
    return files


def _revision(files: list[storage.Entry]) -> str:
    lines = "".join(f"{entry.path}\0{entry.size}\0{entry.tag}\n" for entry in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:24]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock between the processes of this machine; it ends with the process."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
