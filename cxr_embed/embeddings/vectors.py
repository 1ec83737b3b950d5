"""Arithmetic on rows of embeddings."""

from __future__ import annotations

import numpy as np


def normalise(values: np.ndarray) -> np.ndarray:
    """Scales rows to length 1 (L2) in place; rows of zeros stay as they are."""
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    values /= np.where(lengths > 0, lengths, 1)[:, None].astype(np.float32)
    return values
