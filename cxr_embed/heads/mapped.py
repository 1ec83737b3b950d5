"""Embeddings as one memory-mapped float32 matrix, converted once and then only opened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_embed import load_embeddings, storage
from cxr_embed.embeddings.opening import place_of_embeddings
from cxr_embed.errors import UsageError
from cxr_embed.runs.fingerprint import Fingerprint, read_output_config
from cxr_embed.storage.cache import cache_folder

# Smaller ones are read again each time: that takes seconds, and needs no cache.
MAP_FROM_BYTES = 256 << 20

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class MappedEmbeddings:
    """Embeddings of many images.

    Attributes:
        source: the path that the user gave.
        ids: dicom ids.
        image_ids: paths or URIs of the images.
        values: float32 of shape (n, d), memory-mapped where large.
        fingerprint: how they were made, where the source records it.
    """

    source: str
    ids: list[str]
    image_ids: list[str]
    values: np.ndarray
    fingerprint: Fingerprint | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Floats in an embedding."""
        return int(self.values.shape[1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns a copy of some rows, float32 of shape (len(rows), d).

        What it reads of a mapped file does not stay in this process's memory.
        """
        out = np.empty((len(rows), self.size), np.float32)
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            out[start : start + _ROWS_AT_A_TIME] = self.values[
                rows[start : start + _ROWS_AT_A_TIME]
            ]
            self.release()
        return out

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields copies of some rows, a few thousand at a time, in their order."""
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            yield self.values[rows[start : start + _ROWS_AT_A_TIME]]

    def release(self) -> None:
        """Drops the mapped pages from this process; the operating system may keep them cached."""
        mapped = getattr(self.values, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def open_embeddings(
    path: str, log: Callable[[str], None] = lambda _: None, map_from_bytes: int = MAP_FROM_BYTES
) -> MappedEmbeddings:
    """Reads embeddings; large ones are kept as a matrix in the user's cache for the next time.

    Only a local source whose files are the same by name, size and time of change is taken from the
    cache.

    Args:
        path: a folder of records, a packed file; local or in a bucket.
        log: receives one line of progress at a time.
        map_from_bytes: keep matrices of at least this size.

    Raises:
        UsageError: there are no embeddings, or they cannot be read.
    """
    path = place_of_embeddings(path)
    fingerprint = _fingerprint_of(path)
    state = _state_of(path)
    base = _cache_path(path, state) if state else None
    kept = _read_kept(base) if base else None
    if kept:
        log(f"embeddings of {path} from {base}.npy")
        return MappedEmbeddings(path, *kept, fingerprint)
    if storage.is_on_disk(path) and not Path(path).exists():
        raise UsageError(f"there are no embeddings at {path}: it does not exist")
    loaded = load_embeddings(path)
    values = np.asarray(loaded.values, np.float32)
    found = MappedEmbeddings(path, list(loaded.ids), list(loaded.image_ids), values, fingerprint)
    if base is None or values.nbytes < map_from_bytes:
        return found
    del loaded
    log(f"keeping {values.nbytes / 1e9:.1f} GB of embeddings in {base}.npy for the next time")
    try:
        _keep(base, found)
    except OSError as error:
        log(f"warning: {base}.npy cannot be written ({error.strerror or error}); going on without")
        return found
    del values, found
    kept = _read_kept(base)
    if kept is None:  # the cache was cleared in between
        raise UsageError(f"{base}.npy was deleted while it was in use: run the command again")
    return MappedEmbeddings(path, *kept, fingerprint)


def _fingerprint_of(path: str) -> Fingerprint | None:
    is_folder = Path(path).is_dir() if storage.is_on_disk(path) else True
    if not is_folder:
        return None
    config = read_output_config(path)
    return config.fingerprint if config else None


def _state_of(path: str) -> str | None:
    """Returns a hash of names, sizes and times of the source's files; None where unknown."""
    if not storage.is_on_disk(path):
        return None
    digest = hashlib.sha256()
    files = (
        [storage.join(path, below) for below in storage.list_paths(path)]
        if Path(path).is_dir()
        else [path]
    )
    for name in sorted(files):
        try:
            status = Path(name).stat()
        except OSError:
            return None
        digest.update(
            f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace")
        )
    return digest.hexdigest()[:24]


def _cache_path(path: str, state: str) -> Path:
    place = hashlib.sha256(os.fsencode(Path(path).resolve())).hexdigest()[:16]
    return cache_folder() / "embeddings" / f"{place}-{state}"


def _read_kept(base: Path) -> tuple[list[str], list[str], np.ndarray] | None:
    try:
        names = json.loads(base.with_suffix(".json").read_text())
        values = np.load(base.with_suffix(".npy"), mmap_mode="r")
    except (OSError, ValueError):
        return None
    ids, image_ids = names["ids"], names["image_ids"]
    return (ids, image_ids, values) if len(ids) == len(values) else None


def _keep(base: Path, found: MappedEmbeddings) -> None:
    """Writes the matrix, then the names, which mark it as complete; removes older versions."""
    base.parent.mkdir(parents=True, exist_ok=True)
    place = base.name.partition("-")[0]
    for old in base.parent.glob(f"{place}-*"):
        old.unlink(missing_ok=True)
    names = json.dumps({"ids": found.ids, "image_ids": found.image_ids}).encode()
    handle, partial = tempfile.mkstemp(prefix=f"{place}-", suffix=".partial", dir=base.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, found.values)
        Path(partial).replace(base.with_suffix(".npy"))
    except BaseException:
        with contextlib.suppress(OSError):
            Path(partial).unlink()
        raise
    storage.write_whole(str(base.with_suffix(".json")), names)
