"""Identifies a model by a hash of the files that determine its embeddings."""

from __future__ import annotations

import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cxr_embed.errors import UsageError
from cxr_embed.models.settings import ModelSettings, is_saved_model

# The files that determine a model's embeddings. Other files (notes, TensorFlow's fingerprint.pb
# with its random id) may differ between two copies of a model.
_CONTENT = ("saved_model.pb", "saved_model.pbtxt", "variables/*", "assets/*")


def check_is_there(settings: ModelSettings) -> None:
    """Raises UsageError if a model, or one of its stages, does not exist."""
    for folder in settings.folders:
        check_saved_model(folder)


def content_id(settings: ModelSettings) -> str:
    """Returns the identity of a model: the hash of the content of all its stages.

    For a hosted model it is the endpoint's name, since the content is not accessible.
    """
    if settings.endpoint is not None:
        return settings.endpoint.name
    folders = settings.folders
    if len(folders) == 1:
        return content_hash(folders[0])
    hashes = "\n".join(content_hash(folder) for folder in folders)
    return hashlib.sha256(hashes.encode()).hexdigest()


def check_saved_model(path: str) -> None:
    """Raises UsageError if `path` is not the folder of a SavedModel."""
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"--model_path {path} does not exist or is not a folder")
    if not is_saved_model(path):
        raise UsageError(
            f"--model_path {path} is not a TensorFlow SavedModel: it holds no saved_model.pb"
        )


def content_hash(path: str) -> str:
    """Returns the SHA-256 of the names and contents of the files in `_CONTENT`."""
    folder = Path(path)
    files = sorted(
        (file.relative_to(folder).as_posix(), file)
        for pattern in _CONTENT
        for file in folder.glob(pattern)
        if file.is_file()
    )
    # Cached, since the launcher and the workers in the same process all need it.
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for _, file in files)
    return _hash_of(state, tuple(name for name, _ in files))


@functools.lru_cache(maxsize=16)
def _hash_of(files: tuple[tuple[str, int, int], ...], names: tuple[str, ...]) -> str:
    with ThreadPoolExecutor(4) as pool:  # hashlib releases the GIL
        digests = list(pool.map(lambda file: _file_hash(Path(file[0])), files))
    total = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
