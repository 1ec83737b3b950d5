"""Nearest embeddings by cosine: exact, block by block, with little memory beside the matrix itself.

A scan reads the matrix once, which takes seconds even for a million embeddings. An index would
have to do the same to be built, and approximate ones lose matches. FAISS is used for what it does
faster, selecting the best of each block for many queries at a time; it finds the same neighbours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from cxr_embed.errors import UsageError

ENGINES = ("auto", "exact", "faiss")

# Rows in a block: 64 MB of 4,096 floats.
BLOCK_ROWS = 4096

# Scores of one step, which are held at once: 256 MB.
_MOST_SCORES = 64_000_000

# From this many queries on FAISS selects faster; one query is quicker without it at any size.
_FAISS_FROM_QUERIES = 64


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of some queries, the most similar first; equally similar ones by row.

    Attributes:
        rows: int64 of shape (queries, k); -1 where there are fewer.
        similarities: float32 of shape (queries, k): cosines, -1..1.
    """

    rows: np.ndarray
    similarities: np.ndarray


class Groups(NamedTuple):
    """Groups of rows, such as patients: a query finds no row of its own group.

    Attributes:
        of_rows: int64 of shape (n,); rows of the group -1 are never found.
        of_queries: int64 of shape (q,).
    """

    of_rows: np.ndarray
    of_queries: np.ndarray


def nearest(
    values: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    leave_out: np.ndarray | None = None,
    centre: np.ndarray | None = None,
    groups: Groups | None = None,
    engine: str = "exact",
) -> Neighbours:
    """Finds the k rows of `values` that are most similar to each query by cosine.

    Args:
        values: float32 of shape (n, d). It is not copied.
        queries: float32 of shape (q, d).
        k: how many; fewer come back where there are fewer.
        leave_out: int of shape (q,): a row that is not to be found, usually the query itself; -1
            for none.
        centre: float32 of shape (d,), taken from both sides first, so that angles are those around
            it. None is the origin, the usual cosine.
        groups: rows that queries must not find. FAISS is not used with it.
        engine: one of `ENGINES`; `auto` is FAISS for many queries where it is installed.

    Returns:
        The neighbours. A vector of length 0 is similar to nothing: cosine 0.

    Raises:
        UsageError: FAISS was asked for and is not installed.
    """
    best_of_block = _engine(engine if groups is None else "exact", len(queries))
    wanted = min(k + (leave_out is not None), len(values))
    step = max(1, _MOST_SCORES // max(len(values[:BLOCK_ROWS]), 1))
    parts = [
        _scan(
            values, queries[start : start + step], wanted,
            centre=centre, best_of_block=best_of_block,
            groups=groups and Groups(groups.of_rows, groups.of_queries[start : start + step]),
        )
        for start in range(0, len(queries), step)
    ]  # fmt: skip
    if not parts:
        return Neighbours(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    rows = np.concatenate([part.rows for part in parts])
    similarities = np.concatenate([part.similarities for part in parts])
    found = Neighbours(rows, similarities)
    return found if leave_out is None else _without(found, leave_out)


def _scan(
    values: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    centre: np.ndarray | None,
    best_of_block: _BestOfBlock,
    groups: Groups | None,
) -> Neighbours:
    """Reads all blocks once and keeps the best k so far."""
    unit_queries = unit(queries, centre)
    rows = np.empty((len(queries), 0), np.int64)
    similarities = np.empty((len(queries), 0), np.float32)
    for start, block in blocks(values):
        hidden = None
        if groups is not None:
            of_rows = groups.of_rows[start : start + len(block)]
            hidden = (of_rows == groups.of_queries[:, np.newaxis]) | (of_rows < 0)
        found, of_block = best_of_block(unit_queries, block, min(k, len(block)), centre, hidden)
        rows = np.concatenate([rows, found + start], axis=1)
        similarities = np.concatenate([similarities, of_block], axis=1)
        order = np.lexsort((rows, -similarities), axis=1)[:, :k]
        rows = np.take_along_axis(rows, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
    rows[np.isneginf(similarities)] = -1
    return Neighbours(rows, np.clip(similarities, -1.0, 1.0))


def _without(found: Neighbours, leave_out: np.ndarray) -> Neighbours:
    """Drops the row that each query leaves out, or else the last one found."""
    is_out = found.rows == leave_out[:, np.newaxis]
    is_out[~is_out.any(axis=1), -1] = True
    shape = (len(found.rows), found.rows.shape[1] - 1)
    kept = found.rows[~is_out], found.similarities[~is_out]
    return Neighbours(kept[0].reshape(shape), kept[1].reshape(shape))


# (unit queries, block, k, centre, which pairs are hidden) -> positions in the block and cosines,
# both (queries, k)
_BestOfBlock = Callable[
    [np.ndarray, np.ndarray, int, "np.ndarray | None", "np.ndarray | None"],
    tuple[np.ndarray, np.ndarray],
]


def _engine(name: str, queries: int) -> _BestOfBlock:
    is_there = importlib.util.find_spec("faiss") is not None
    if name == "faiss" and not is_there:
        raise UsageError("--index=faiss: FAISS is not installed: pip install 'cxr-embed[explore]'")
    if name == "faiss" or (name == "auto" and is_there and queries >= _FAISS_FROM_QUERIES):
        return _best_by_faiss
    return _best_by_numpy


def _best_by_numpy(
    unit_queries: np.ndarray,
    block: np.ndarray,
    k: int,
    centre: np.ndarray | None,
    hidden: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    if centre is not None:
        block = block - centre
    scores = unit_queries @ block.T
    scores /= _safe_lengths(block)
    if hidden is not None:
        scores[hidden] = -np.inf
    if k < len(block):
        positions = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    else:
        positions = np.broadcast_to(np.arange(len(block)), scores.shape)
    return positions, np.take_along_axis(scores, positions, axis=1)


def _best_by_faiss(
    unit_queries: np.ndarray,
    block: np.ndarray,
    k: int,
    centre: np.ndarray | None,
    _: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    scores, positions = faiss.knn(
        unit_queries, unit(block, centre), k, metric=faiss.METRIC_INNER_PRODUCT
    )
    return positions, scores


def blocks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields consecutive rows as views, each with the number of its first row."""
    for start in range(0, len(values), BLOCK_ROWS):
        yield start, values[start : start + BLOCK_ROWS]


def unit(values: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """Returns a copy of some vectors with length 1, seen from `centre`; zeros stay zeros."""
    moved = values.astype(np.float32) if centre is None else values - centre
    return cast(np.ndarray, moved / _safe_lengths(moved)[:, np.newaxis])


def lengths(values: np.ndarray) -> np.ndarray:
    """Returns the Euclidean lengths of rows, float32 of shape (n,), without copying them."""
    parts = [np.sqrt(np.einsum("ij,ij->i", block, block)) for _, block in blocks(values)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of rows, float32 of shape (d,), added up in float64."""
    total = np.zeros(values.shape[1])
    for _, block in blocks(values):
        total += block.sum(axis=0, dtype=np.float64)
    return (total / max(len(values), 1)).astype(np.float32)


def _safe_lengths(values: np.ndarray) -> np.ndarray:
    found = np.sqrt(np.einsum("ij,ij->i", values, values))
    return np.where(found > 0, found, np.float32(np.inf))
