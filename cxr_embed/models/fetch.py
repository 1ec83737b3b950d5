"""Downloads models from buckets and the Hugging Face Hub, once per machine.

A model is all files below a folder; or one file, if its name has a suffix that a kind of model
knows (`.onnx`), with the files that it names.

Models in buckets go into this program's cache, those on the Hub into huggingface_hub's own (see
`hub`). Models are loaded from local files only, since TensorFlow's own gs:// client has other
credentials and retries than this program's. The launcher and each worker call this module
independently.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from cxr_embed import storage
from cxr_embed.errors import NotFetched, UsageError
from cxr_embed.models import hub, loading
from cxr_embed.models.kinds import ModelKind
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
    """Returns the revision of `look_up`."""
    return look_up(path)[0]


def look_up(path: str) -> tuple[str, list[str] | None]:
    """Looks up what all workers must fetch.

    A bucket is listed once. Content is read only of a model's main file that may name others.

    Returns:
        A commit of the Hub, or a hash of the names, sizes and checksums of the model's files in a
        bucket; and the names of these files relative to the model's folder, None for the Hub.

    Raises:
        UsageError: the model does not exist or cannot be listed.
    """
    if hub.is_address(path):
        return hub.commit_of(path), None
    files = _files(path)
    return _revision(files), [entry.path for entry in files]


def pinned(path: str, commit: str) -> str:
    """Returns the address of a model on the Hub at one commit; other paths unchanged."""
    return hub.parse(path).at(commit) if commit and hub.is_address(path) else path


def is_here(path: str, revision: str, folders: Sequence[str] = ()) -> bool:
    """Whether this machine's cache contains a model; see `local_copy`."""
    if hub.is_address(path):
        return hub.is_here(path, revision, folders)
    return _folder(revision).is_dir()


def local_copy(path: str, revision: str, folders: Sequence[str] = ()) -> str:
    """Returns a local copy of a model; the first call on a machine downloads it.

    Args:
        path: the model's folder or file in a bucket, or its address on the Hub.
        revision: the result of `revision_of` in the launcher.
        folders: the folders below it that the model consists of; empty for all. From the Hub, only
            these are downloaded.

    Raises:
        UsageError: the model cannot be downloaded, or has changed since the launch.
    """
    if hub.is_address(path):
        return _copy_from_hub(path, revision, folders)
    folder = _folder(revision)
    local = str(folder / _split(path)[1])
    if folder.is_dir():
        return local
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _fetch(path, revision, folder)
    except OSError as error:
        raise NotFetched(f"--model_path cannot be fetched: {error}") from error
    return local


def _copy_from_hub(path: str, revision: str, folders: Sequence[str]) -> str:
    local = hub.local_copy(path, revision, folders)
    above, name = _split(path)
    if hub.parse(path).folder and (kind := _kind_of_file(name)):
        companions = sorted(kind.companions(Path(local)))
        if companions:
            hub.local_copy(above, revision, companions)
    return local


def _folder(revision: str) -> Path:
    return cache_folder() / "models" / f"bucket-{revision}"


def _fetch(path: str, revision: str, folder: Path) -> None:
    """Downloads a model into a folder that appears atomically. The caller holds the lock."""
    files = _files(path)
    if _revision(files) != revision:
        raise NotFetched(
            f"--model_path {path} has changed since the run was started: start it again"
        )
    base, _ = _split(path)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process

    def fetch(entry: storage.Entry) -> None:
        target = partial / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.download(storage.join(base, entry.path), target, entry.tag)

    with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        list(pool.map(fetch, files))
    partial.rename(folder)


def _split(path: str) -> tuple[str, str]:
    """Returns a model's folder and the name of its main file, which is empty for a whole folder."""
    folder, _, name = path.rstrip("/").rpartition("/")
    return (folder, name) if _kind_of_file(name) else (path, "")


def _kind_of_file(name: str) -> ModelKind | None:
    kind = loading.kind_of(loading.engine_for(name, [name]))
    return kind if kind.claims([name]) else None


def _files(path: str) -> list[storage.Entry]:
    folder, name = _split(path)
    try:
        files = sorted(storage.list_files(folder))
        if name:
            files = _main_file_and_companions(folder, name, files)
    except OSError as error:
        raise NotFetched(f"--model_path cannot be fetched: {error}") from error
    if not files:
        raise NotFetched(f"--model_path cannot be fetched: {path} holds no files")
    for entry in files:
        parts = PurePosixPath(entry.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise UsageError(f"--model_path {path} holds {entry.path}, which is no valid file path")
    return files


def _main_file_and_companions(
    folder: str, name: str, files: list[storage.Entry]
) -> list[storage.Entry]:
    by_name = {entry.path: entry for entry in files}
    kind = _kind_of_file(name)
    if name not in by_name or kind is None:
        raise FileNotFoundError(f"{storage.join(folder, name)} does not exist")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, name)
        storage.download(storage.join(folder, name), copy, by_name[name].tag)
        wanted = [name, *kind.companions(copy)]
    missing = [each for each in wanted if each not in by_name]
    if missing:
        raise FileNotFoundError(
            f"{storage.join(folder, name)} needs {missing[0]}, which is not in its folder"
        )
    return sorted(by_name[each] for each in set(wanted))


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
