"""Embeddings wherever they lie, as parts that are read one by one.

Whoever reads embeddings sees the same few things, be it a folder of records, Parquet or TFRecord
shards or an .npz file: how many floats an embedding has, and parts of known length. A part is
read in one go, so a reader that holds one part at a time needs the same memory at any size.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np

from cxr_embed import storage
from cxr_embed.elements import RECORD_SUFFIX, RUNS_FOLDER
from cxr_embed.errors import UsageError

PARQUET_SUFFIX, NPZ_SUFFIX = ".parquet", ".npz"

# More than two get into each other's way: opening a small file is mostly Python.
_READERS = 2

_SUFFIXES = (RECORD_SUFFIX, PARQUET_SUFFIX, NPZ_SUFFIX)

# What `pack` names its files; Hugging Face's and TensorFlow's custom.
SHARD_NAME = re.compile(r"embeddings-(\d{5})-of-(\d{5})\.(?:parquet|tfrecord)$")


class Names(NamedTuple):
    """What a part's rows are called, in order."""

    dicom_ids: list[str]
    image_ids: list[str]


class Part(Protocol):
    """Some rows that are read together."""

    @property
    def rows(self) -> int:
        """How many."""

    def dicom_ids(self) -> list[str]:
        """Returns the rows' dicom ids without reading the embeddings."""

    def read(self, out: np.ndarray) -> Names:
        """Reads all rows into `out`, float32 of shape (rows, d).

        Raises:
            UsageError: something in it is damaged, or an embedding has another size.
        """


@dataclass(frozen=True)
class Parts:
    """Everything at one place.

    Attributes:
        path: as the user gave it.
        kind: `records`, `parquet`, `npz` or `tfrecord`.
        embedding_size: floats in an embedding.
        parts: in the order of their files' names.
        files: all files' paths below `path`, sorted.
    """

    path: str
    kind: str
    embedding_size: int
    parts: Sequence[Part]
    files: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """How many embeddings there are."""
        return sum(part.rows for part in self.parts)


class Filtered:
    """A part of which only some rows are wanted."""

    def __init__(self, part: Part, wanted: Collection[str]) -> None:
        self._part = part
        self._keep = np.array([name in wanted for name in part.dicom_ids()], bool)

    @property
    def rows(self) -> int:
        """How many are wanted."""
        return int(self._keep.sum())

    def dicom_ids(self) -> list[str]:
        """Returns those that are wanted."""
        return _chosen(self._part.dicom_ids(), self._keep)

    def read(self, out: np.ndarray) -> Names:
        """Reads the wanted rows into `out`; see `parts.Part`."""
        if self._keep.all():
            return self._part.read(out)
        if not self._keep.any():
            return Names([], [])
        whole = np.empty((len(self._keep), out.shape[1]), np.float32)
        names = self._part.read(whole)
        out[:] = whole[self._keep]
        return Names(*(_chosen(column, self._keep) for column in names))


def _chosen(names: list[str], keep: np.ndarray) -> list[str]:
    return [name for name, is_wanted in zip(names, keep, strict=True) if is_wanted]


def read_parts(parts: Sequence[Part], values: np.ndarray) -> Names:
    """Reads all rows of some parts into `values`, float32 of shape (rows, d).

    Raises:
        UsageError: something in them is damaged, or an embedding has another size.
    """
    stops = np.cumsum([part.rows for part in parts])

    def read(number: int) -> Names:
        part = parts[number]
        return part.read(values[stops[number] - part.rows : stops[number]])

    with ThreadPoolExecutor(_READERS) as pool:
        names = list(pool.map(read, range(len(parts))))
    return Names(
        [name for part in names for name in part.dicom_ids],
        [name for part in names for name in part.image_ids],
    )


@contextlib.contextmanager
def open_parts(path: str, ids: Collection[str] | None = None) -> Iterator[Parts]:
    """Finds out what lies at `path`.

    Args:
        path: an output of the main job, one record, a packed folder, or one packed file; local or
            gs://. Packed files in a bucket are fetched into a temporary folder first.
        ids: only records of these dicom ids; packed parts are not narrowed down.

    Yields:
        The parts. They are to be read before the context ends.

    Raises:
        UsageError: nothing there, or it cannot be used.
    """
    files = sorted(_embedding_files(path))
    is_file = len(files) == 1 and is_embedding_file(path)
    names = [path] if is_file else [storage.join(path, file) for file in files]
    kinds = {_kind(name) for name in names}
    if not names:
        raise UsageError(
            f"no embeddings in {path}: neither {RECORD_SUFFIX} nor {PARQUET_SUFFIX} nor "
            f"{NPZ_SUFFIX} files"
        )
    if len(kinds) > 1:
        raise UsageError(f"{path} holds embeddings of several kinds ({', '.join(sorted(kinds))})")
    kind = kinds.pop()
    if kind == "records":
        from cxr_embed.datasets.record_files import record_parts

        yield replace(record_parts(path, names, ids), files=files)
        return
    if not is_file:
        refuse_unfinished(path, files)
    with _local(names) as local:
        yield replace(_packed_parts(path, kind, local), files=files)


def _packed_parts(path: str, kind: str, files: list[str]) -> Parts:
    if kind == "parquet":
        from cxr_embed.datasets.parquet import parquet_parts

        return parquet_parts(path, files)
    if kind == "npz":
        from cxr_embed.datasets.npz import npz_parts

        return npz_parts(path, files)
    from cxr_embed.datasets.tfrecord import shard_parts

    return shard_parts(path, files)


def _embedding_files(path: str) -> Iterator[str]:
    """Yields the files that may hold embeddings: below `path`, or the name of `path` itself."""
    if is_embedding_file(path):
        yield path.rpartition("/")[2]
        return
    try:
        for below in storage.list_paths(path):
            if below.endswith(_SUFFIXES) and not below.startswith(f"{RUNS_FOLDER}/"):
                yield below
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error}") from error


def is_embedding_file(path: str) -> bool:
    """Whether a path is one file that may hold embeddings, not a folder of them."""
    if not path.endswith(_SUFFIXES):
        return False
    return storage.exists(path) if storage.is_remote(path) else Path(path).is_file()


def _kind(name: str) -> str:
    if name.endswith(PARQUET_SUFFIX):
        return "parquet"
    if name.endswith(NPZ_SUFFIX):
        return "npz"
    return "tfrecord" if SHARD_NAME.search(name) else "records"


def refuse_unfinished(path: str, names: Sequence[str]) -> None:
    """Raises UsageError where shards say that there should be more of them."""
    found: dict[tuple[str, int], int] = {}
    for name in names:
        if shard := SHARD_NAME.search(name):
            key = (str(PurePosixPath(name).parent), int(shard[2]))
            found[key] = found.get(key, 0) + 1
    for (_, expected), number in found.items():
        if number != expected:
            raise UsageError(
                f"{path} is not whole: {number} of {expected} shards; run cxr-embed pack again"
            )


@contextlib.contextmanager
def _local(names: list[str]) -> Iterator[list[str]]:
    if not storage.is_remote(names[0]):
        yield names
        return
    with tempfile.TemporaryDirectory(prefix="cxr-embed-") as folder:
        files = [
            str(Path(folder, f"{n:05d}-{PurePosixPath(name).name}")) for n, name in enumerate(names)
        ]
        for name, file in zip(names, files, strict=True):
            storage.write_whole(file, _read(name))
        yield files


def _read(name: str) -> bytes:
    try:
        return storage.read_bytes(name)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}") from error
