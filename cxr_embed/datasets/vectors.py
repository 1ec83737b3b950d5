"""Arithmetic on rows of embeddings, block by block: no index, no second copy of the matrix."""

from __future__ import annotations

import numpy as np

_ROWS_PER_BLOCK = 8192


def cosine_nearest(
    values: np.ndarray, query: np.ndarray, k: int, skip: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows most alike to one vector.

    Args:
        values: float32 of shape (n, d).
        query: shape (d,).
        k: how many rows at most.
        skip: a row to leave out, the query's own.

    Returns:
        Rows, most alike first, and their cosines in float32; ties in the order of the rows. The
        cosine with a vector of length zero counts as -inf: it has no direction.
    """
    length = float(np.linalg.norm(query))
    unit = np.asarray(query, np.float32) / np.float32(length or np.nan)
    alike = np.empty(len(values), np.float32)
    for start in range(0, len(values), _ROWS_PER_BLOCK):
        block = values[start : start + _ROWS_PER_BLOCK]
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
        with np.errstate(divide="ignore", invalid="ignore"):
            alike[start : start + _ROWS_PER_BLOCK] = (block @ unit) / lengths
    alike[np.isnan(alike)] = -np.inf
    if skip is not None:
        alike = np.delete(alike, skip)
    order = np.argsort(-alike, kind="stable")[:k]
    rows = order if skip is None else order + (order >= skip)
    return rows, alike[order]


def normalise(values: np.ndarray) -> np.ndarray:
    """Scales rows to length 1 (L2) in place; rows of zeros stay as they are."""
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    values /= np.where(lengths > 0, lengths, 1)[:, None].astype(np.float32)
    return values
