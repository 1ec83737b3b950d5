"""Embeddings as one memory-mapped float32 matrix, converted once and then opened in no time."""

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
from cxr_embed.errors import UsageError
from cxr_embed.runs.fingerprint import Fingerprint, read_output_config
from cxr_embed.storage.cache import cache_folder

# Smaller ones are read again each time: that takes seconds, and a cache could only be wrong.
MAP_FROM_BYTES = 256 << 20

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class MappedEmbeddings:
    """Embeddings of many images.

    Attributes:
        source: what the user named.
        ids: dicom ids.
        image_ids: paths or URIs of the images.
        values: float32 of shape (n, d), memory-mapped where large.
        fingerprint: how they were made, where the source says so.
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
        """Lets go of the mapped pages; the operating system may keep them for itself."""
        mapped = getattr(self.values, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def open_embeddings(
    path: str, say: Callable[[str], None] = lambda _: None, map_from_bytes: int = MAP_FROM_BYTES
) -> MappedEmbeddings:
    """Reads embeddings; large ones are kept as a matrix in the user's cache for the next time.

    Only a local source whose files are the same by name, size and time of change is taken from the
    cache.

    Args:
        path: a folder of records, a packed file, or gs://.
        say: tells a person one line.
        map_from_bytes: keep matrices of at least this size.

    Raises:
        UsageError: no embeddings there, or unreadable ones.
    """
    fingerprint = _fingerprint_of(path)
    stamp = _stamp(path)
    base = _cache_path(path, stamp) if stamp else None
    kept = _read_kept(base) if base else None
    if kept:
        say(f"embeddings of {path} from {base}.npy")
        return MappedEmbeddings(path, *kept, fingerprint)
    if not storage.is_remote(path) and not Path(path).exists():
        raise UsageError(f"there are no embeddings at {path}: it does not exist")
    loaded = load_embeddings(path)
    values = np.asarray(loaded.values, np.float32)
    found = MappedEmbeddings(path, list(loaded.ids), list(loaded.image_ids), values, fingerprint)
    if base is None or values.nbytes < map_from_bytes:
        return found
    del loaded
    say(f"keeping {values.nbytes / 1e9:.1f} GB of embeddings in {base}.npy for the next time")
    try:
        _keep(base, found)
    except OSError as error:
        say(f"warning: {base}.npy cannot be written ({error.strerror or error}); going on without")
        return found
    del values, found
    kept = _read_kept(base)
    if kept is None:  # somebody has cleared the cache between the two lines
        raise UsageError(f"{base}.npy has vanished while it was in use: run the command again")
    return MappedEmbeddings(path, *kept, fingerprint)


def _fingerprint_of(path: str) -> Fingerprint | None:
    is_folder = Path(path).is_dir() if not storage.is_remote(path) else True
    if not is_folder:
        return None
    config = read_output_config(path)
    return config.fingerprint if config else None


def _stamp(path: str) -> str | None:
    """Returns a hash of what the source's files are, or None where that cannot be told."""
    if storage.is_remote(path):
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


def _cache_path(path: str, stamp: str) -> Path:
    place = hashlib.sha256(os.fsencode(Path(path).resolve())).hexdigest()[:16]
    return cache_folder() / "embeddings" / f"{place}-{stamp}"


def _read_kept(base: Path) -> tuple[list[str], list[str], np.ndarray] | None:
    try:
        names = json.loads(base.with_suffix(".json").read_text())
        values = np.load(base.with_suffix(".npy"), mmap_mode="r")
    except (OSError, ValueError):
        return None
    ids, image_ids = names["ids"], names["image_ids"]
    return (ids, image_ids, values) if len(ids) == len(values) else None


def _keep(base: Path, found: MappedEmbeddings) -> None:
    """Writes the matrix, then the names, which say that it is whole; older ones of it go."""
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
