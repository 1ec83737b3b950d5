"""Computes two-dimensional maps of embeddings: principal components, and UMAP if installed."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from cxr_embed.embeddings.neighbours import mean

# Maximum number of rows for the fit: 164 MB with 4,096 floats.
_MOST_ROWS = 10_000

_COMPONENTS = 50
_EXTRA = 14
_ITERATIONS = 8

_UMAP_NEIGHBOURS = 15
LEAST_FOR_UMAP = 20


@dataclass(frozen=True)
class PrincipalComponents:
    """The principal components of embeddings.

    Attributes:
        centre: float32 of shape (d,), the mean of all embeddings.
        axes: float32 of shape (c, d), unit vectors, sorted by decreasing variance.
        shares: float64 of shape (c,): share of the variance of each axis.
        rows: number of embeddings in the fit.
    """

    centre: np.ndarray
    axes: np.ndarray
    shares: np.ndarray
    rows: int

    def project(self, values: np.ndarray) -> np.ndarray:
        """Returns coordinates, float32 of shape (n, c)."""
        return cast(np.ndarray, (values - self.centre) @ self.axes.T)


def principal_components(values: np.ndarray, seed: int = 0) -> PrincipalComponents:
    """Finds up to 50 principal components.

    At most 10,000 embeddings, a seeded sample, are used for the fit. The algorithm is subspace
    iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4), which needs no d by d matrix.

    Args:
        values: float32 of shape (n, d), n at least 1.
        seed: seed of the sample and of the initial basis.
    """
    random = np.random.default_rng(seed)
    centre = mean(values)
    sample = values
    if len(values) > _MOST_ROWS:
        sample = values[np.sort(random.choice(len(values), _MOST_ROWS, replace=False))]
    moved = sample - centre
    total = float(np.square(moved, dtype=np.float64).sum())
    wanted = min(_COMPONENTS, *moved.shape)
    size = min(wanted + _EXTRA, *moved.shape)
    basis = random.standard_normal((moved.shape[1], size)).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(moved.T @ np.linalg.qr(moved @ basis)[0])[0]
    _, singular, inner = np.linalg.svd(moved @ basis, full_matrices=False)
    axes = (inner @ basis.T)[:wanted]
    # The sign of an axis is arbitrary. Its largest weight is made positive, so that maps of several
    # runs can be compared.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, np.newaxis], axis=1)
    axes = axes * np.where(largest < 0, -1, 1).astype(np.float32)
    shares = singular[:wanted].astype(np.float64) ** 2 / (total or 1.0)
    return PrincipalComponents(centre, axes, shares, len(sample))


def has_umap() -> bool:
    """Whether UMAP is installed."""
    return importlib.util.find_spec("umap") is not None


def umap(coordinates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns UMAP's two coordinates, float32 of shape (n, 2).

    Args:
        coordinates: float32 of shape (n, c), principal components; n is at least `LEAST_FOR_UMAP`.
        seed: the same seed gives the same map on the same machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that a seed disables its threads
        neighbours = min(_UMAP_NEIGHBOURS, len(coordinates) - 1)
        reducer = _import_umap()(n_neighbors=neighbours, random_state=seed)
        return cast(np.ndarray, reducer.fit_transform(coordinates)).astype(np.float32)


def _import_umap() -> Any:
    """Returns the class UMAP without importing TensorFlow, which only a variant of it needs."""
    variant = "umap.parametric_umap"
    if "umap" in sys.modules:
        return sys.modules["umap"].UMAP
    sys.modules[variant] = None  # type: ignore[assignment]
    try:
        import umap as package
    finally:
        del sys.modules[variant]
    return package.UMAP
