"""Measures the embeddings of a report: lengths, angles, principal components and neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_embed.embeddings import neighbours as search
from cxr_embed.report import duplicates, maps

# Number of random pairs for the histogram of cosines.
_PAIRS = 20_000


@dataclass(frozen=True)
class Space:
    """The space of the embeddings.

    Attributes:
        lengths: Euclidean lengths of the embeddings, float32 of shape (n,).
        cosines: float32 of shape (2, m): cosines of random pairs before and after subtracting the
            mean of all.
        components: principal components of the embeddings.
        closeness: nearest neighbours of the embeddings.
        groups: near-duplicates.
    """

    lengths: np.ndarray
    cosines: np.ndarray
    components: maps.PrincipalComponents
    closeness: duplicates.Closeness
    groups: list[duplicates.Group]

    def farthest(self, most: int) -> list[int]:
        """Returns rows with the lowest similarity to their nearest neighbours, the lowest first."""
        order = np.argsort(self.closeness.mean_similarities, kind="stable")[:most]
        return [int(row) for row in self.closeness.rows[order]]


def measure(values: np.ndarray, duplicate_similarity: float, seed: int) -> Space:
    """Measures embeddings.

    Args:
        values: float32 of shape (n, d), n at least 1.
        duplicate_similarity: minimum cosine of near-duplicates.
        seed: seed of all samples.
    """
    components = maps.principal_components(values, seed)
    closeness = duplicates.find_closest(values, components.centre, seed)
    return Space(
        lengths=search.lengths(values),
        cosines=_cosines_of_pairs(values, components.centre, seed),
        components=components,
        closeness=closeness,
        groups=duplicates.group_duplicates(
            closeness, duplicate_similarity, duplicates.identical_rows(values)
        ),
    )


def _cosines_of_pairs(values: np.ndarray, centre: np.ndarray, seed: int) -> np.ndarray:
    """Returns cosines of random pairs of rows, before and after subtracting the mean."""
    total = len(values)
    if total < 2:
        return np.empty((2, 0), np.float32)
    random = np.random.default_rng(seed)
    pairs = min(_PAIRS, total * (total - 1) // 2)
    first = random.integers(0, total, pairs)
    second = (first + random.integers(1, total, pairs)) % total
    found = np.empty((2, pairs), np.float32)
    for start in range(0, pairs, search.BLOCK_ROWS):
        part = slice(start, start + search.BLOCK_ROWS)
        one, other = values[first[part]], values[second[part]]
        for row, origin in enumerate((None, centre)):
            found[row, part] = np.einsum(
                "ij,ij->i", search.unit(one, origin), search.unit(other, origin)
            )
    return found
