"""Embeddings wherever they lie, as parts that are read one by one.

Readers see the same few things, whether it is a folder of records, Parquet or TFRecord shards or an
.npz file: how many floats an embedding has, and parts of known length. A part is read in one go, so
a reader that holds one part at a time needs the same memory at any size.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

PARQUET_SUFFIX, NPZ_SUFFIX = ".parquet", ".npz"

_FLOATS_IN_PAGE = 1024

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

    @property
    def threads(self) -> int:
        """How many threads read parts of this kind quickest: 1 where Python does most of it."""

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

    @property
    def threads(self) -> int:
        """As many as for the whole part."""
        return self._part.threads

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
    outs = [values[stop - part.rows : stop] for stop, part in zip(stops, parts, strict=True)]
    threads = max((part.threads for part in parts), default=1)
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(threads) as pool:
        touched = [ahead.submit(_touch, out) for out in outs]

        def read(number: int) -> Names:
            touched[number].result()
            return parts[number].read(outs[number])

        try:
            names = list(pool.map(read, range(len(parts))))
        finally:
            ahead.shutdown(cancel_futures=True)
    return Names(
        [name for part in names for name in part.dicom_ids],
        [name for part in names for name in part.image_ids],
    )


def _touch(out: np.ndarray) -> None:
    """Lets the system provide the memory of a new array.

    That takes as long as reading into it. NumPy does it without Python's lock, so that another
    thread reads meanwhile.
    """
    out.reshape(-1)[::_FLOATS_IN_PAGE] = 0
