"""Embeddings as one memory-mapped float32 matrix, converted once and then only opened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr_embed import storage
from cxr_embed.embeddings.fingerprints import common_fingerprint
from cxr_embed.embeddings.loading import load_embeddings, merge
from cxr_embed.embeddings.opening import place_of_embeddings
from cxr_embed.errors import UsageError
from cxr_embed.runs.fingerprint import Fingerprint
from cxr_embed.storage.cache import cache_folder

# Smaller ones are read again each time: that takes seconds, and needs no cache.
MAP_FROM_BYTES = 256 << 20

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class MappedEmbeddings:
    """Embeddings of many images.

    Attributes:
        source: the path that the user gave, or several.
        ids: dicom ids.
        image_ids: paths or URIs of the images.
        values: float32 of shape (n, d), memory-mapped where large.
        fingerprint: how they were made, where the source records it.
        sets: the paths, where several sets were read as one; else empty.
        set_of_row: int64 (n,), the number of each image's set; None of a single set.
    """

    source: str
    ids: list[str]
    image_ids: list[str]
    values: np.ndarray
    fingerprint: Fingerprint | None
    sets: tuple[str, ...] = ()
    set_of_row: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Floats in an embedding."""
        return int(self.values.shape[1])

    def sources_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Returns the path that each image is from, as text; None of a single set."""
        if self.set_of_row is None:
            return None
        return np.array(self.sets, dtype=object)[self.set_of_row[rows]]

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
    paths: str | Sequence[str],
    log: Callable[[str], None] = lambda _: None,
    map_from_bytes: int = MAP_FROM_BYTES,
    *,
    mixed_settings: bool = False,
) -> MappedEmbeddings:
    """Reads embeddings; large ones are kept as a matrix in the user's cache for the next time.

    Only a local source whose files are the same by name, size and time of change is taken from the
    cache.

    Args:
        paths: a folder of records, a packed file; local or in a bucket; or several, which become
            one set (see `embeddings.loading.merge`).
        log: receives one line of progress at a time.
        map_from_bytes: keep matrices of at least this size.
        mixed_settings: accept several sets that were made with different settings.

    Raises:
        UsageError: there are no embeddings, they cannot be read, or several sets do not fit.
    """
    given = [paths] if isinstance(paths, str) else list(dict.fromkeys(paths))
    names = [place_of_embeddings(name) for name in given]
    source = ", ".join(names)
    fingerprint = common_fingerprint(names, mixed_settings, log)
    base = _cache_path(names)
    kept = _read_kept(base, source, fingerprint) if base else None
    if kept:
        log(f"embeddings of {source} from {base}.npy")
        return kept
    for name in names:
        if storage.is_on_disk(name) and not Path(name).exists():
            raise UsageError(f"there are no embeddings at {name}: it does not exist")
    found = _load(names, source, fingerprint)
    size = found.values.nbytes
    if base is None or size < map_from_bytes:
        return found
    log(f"keeping {size / 1e9:.1f} GB of embeddings in {base}.npy for the next time")
    try:
        _keep(base, found)
    except OSError as error:
        log(f"warning: {base}.npy cannot be written ({error.strerror or error}); going on without")
        return found
    del found
    kept = _read_kept(base, source, fingerprint)
    if kept is None:  # the cache was cleared in between
        raise UsageError(f"{base}.npy was deleted while it was in use: run the command again")
    return kept


def _load(names: list[str], source: str, fingerprint: Fingerprint | None) -> MappedEmbeddings:
    sets = [load_embeddings(name) for name in names]
    if len(sets) == 1:
        loaded = sets[0]
        values = np.asarray(loaded.values, np.float32)
        return MappedEmbeddings(source, list(loaded.ids), list(loaded.image_ids), values,
                                fingerprint)  # fmt: skip
    merged, set_of_row = merge(names, sets)
    return MappedEmbeddings(
        source, merged.ids, merged.image_ids, merged.values, fingerprint, tuple(names), set_of_row
    )


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


def _cache_path(names: list[str]) -> Path | None:
    """Returns where the sets' matrix is kept, without suffix; None where their state is unknown."""
    states = [_state_of(name) for name in names]
    places = [os.fsencode(Path(name).resolve()) for name in names]
    if any(state is None for state in states):
        return None
    place = hashlib.sha256(b"\0".join(places)).hexdigest()[:16]
    state = states[0]
    if len(states) > 1:
        state = hashlib.sha256(" ".join(map(str, states)).encode()).hexdigest()[:24]
    return cache_folder() / "embeddings" / f"{place}-{state}"


def _read_kept(base: Path, source: str, fingerprint: Fingerprint | None) -> MappedEmbeddings | None:
    try:
        names = json.loads(base.with_suffix(".json").read_text())
        values = np.load(base.with_suffix(".npy"), mmap_mode="r")
    except (OSError, ValueError):
        return None
    if len(names["ids"]) != len(values):
        return None
    sets = tuple(names.get("sets", ()))
    set_of_row = np.array(names["set_of_row"], np.int64) if sets else None
    return MappedEmbeddings(
        source, names["ids"], names["image_ids"], values, fingerprint, sets, set_of_row
    )


def _keep(base: Path, found: MappedEmbeddings) -> None:
    """Writes the matrix, then the names, which mark it as complete; removes older versions."""
    base.parent.mkdir(parents=True, exist_ok=True)
    place = base.name.partition("-")[0]
    for old in base.parent.glob(f"{place}-*"):
        old.unlink(missing_ok=True)
    names: dict[str, Any] = {"ids": found.ids, "image_ids": found.image_ids}
    if found.set_of_row is not None:
        names |= {"sets": found.sets, "set_of_row": found.set_of_row.tolist()}
    handle, partial = tempfile.mkstemp(prefix=f"{place}-", suffix=".partial", dir=base.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, found.values)
        Path(partial).replace(base.with_suffix(".npy"))
    except BaseException:
        with contextlib.suppress(OSError):
            Path(partial).unlink()
        raise
    storage.write_whole(str(base.with_suffix(".json")), json.dumps(names).encode())
