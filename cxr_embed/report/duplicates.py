"""Finds images with identical or nearly identical embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cxr_embed.embeddings import neighbours as search

# Maximum number of comparisons: 20,000 embeddings with all others take a minute on two cores.
MOST_COMPARISONS = 400_000_000

# Neighbours per embedding. Groups with more copies are found by joining their pairs.
NEIGHBOURS = 5


@dataclass(frozen=True)
class Closeness:
    """The nearest neighbours of all embeddings, or of a sample of them.

    Attributes:
        rows: int64 of shape (q,): the rows of the queries, ascending.
        neighbours: the nearest neighbours of each query among all other embeddings; cosines after
            subtracting the mean of all.
        total: number of embeddings.
    """

    rows: np.ndarray
    neighbours: search.Neighbours
    total: int

    @property
    def is_sample(self) -> bool:
        """Whether only a sample of the embeddings was compared."""
        return len(self.rows) < self.total

    @property
    def mean_similarities(self) -> np.ndarray:
        """Mean cosine of each query to its neighbours, float32 of shape (q,)."""
        found = self.neighbours.similarities
        return found.mean(axis=1) if found.shape[1] else np.zeros(len(found), np.float32)


def find_closest(values: np.ndarray, centre: np.ndarray, seed: int = 0) -> Closeness:
    """Finds each embedding's nearest neighbours, exactly.

    The mean of all embeddings is subtracted first: embeddings of one model have a large common
    part, which makes all cosines nearly 1. If the number of comparisons exceeds `MOST_COMPARISONS`,
    a seeded random sample is compared with all embeddings.

    Args:
        values: float32 of shape (n, d).
        centre: float32 of shape (d,), the mean of all.
        seed: seed of the sample.
    """
    total = len(values)
    queries = min(total, max(1, MOST_COMPARISONS // max(total, 1)))
    rows = np.arange(total)
    if queries < total:
        rows = np.sort(np.random.default_rng(seed).choice(total, queries, replace=False))
    neighbours = search.nearest(
        values, values[rows], NEIGHBOURS, leave_out=rows, centre=centre, engine="auto"
    )
    return Closeness(rows, neighbours, total)


@dataclass(frozen=True)
class Group:
    """Rows of embeddings that are close to one another, and the lowest cosine of a joined pair."""

    rows: list[int]
    similarity: float


def identical_rows(values: np.ndarray) -> list[list[int]]:
    """Returns groups of rows that are equal to the last bit; all rows are compared."""
    rows_of: dict[int, list[int]] = {}
    for row, embedding in enumerate(values):
        rows_of.setdefault(hash(embedding.tobytes()), []).append(row)
    candidates = (rows for rows in rows_of.values() if len(rows) > 1)
    return [rows for rows in candidates if (values[rows] == values[rows[0]]).all()]


def group_duplicates(
    closeness: Closeness, least_similarity: float, identical: Iterable[list[int]] = ()
) -> list[Group]:
    """Joins all similar pairs into groups, sorted by decreasing similarity.

    Args:
        closeness: the nearest neighbours.
        least_similarity: minimum cosine of a pair.
        identical: groups of rows that are always joined.
    """
    found = closeness.neighbours
    parents: dict[int, int] = {}

    def root(row: int) -> int:
        while parents.setdefault(row, row) != row:
            parents[row] = row = parents[parents[row]]
        return row

    links: list[tuple[int, float]] = []
    for first, *others in identical:
        for other in others:
            parents[root(first)] = root(other)
            links.append((first, 1.0))
    for position, column in zip(*np.nonzero(found.similarities >= least_similarity), strict=True):
        one, other = int(closeness.rows[position]), int(found.rows[position, column])
        parents[root(one)] = root(other)
        links.append((one, float(found.similarities[position, column])))
    members: dict[int, list[int]] = {}
    for row in parents:
        members.setdefault(root(row), []).append(row)
    weakest: dict[int, float] = {}
    for row, similarity in links:
        weakest[root(row)] = min(similarity, weakest.get(root(row), 1.0))
    groups = [Group(sorted(rows), weakest[top]) for top, rows in members.items()]
    return sorted(groups, key=lambda group: (-group.similarity, group.rows))
