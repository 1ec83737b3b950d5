"""Bands of 95 % around the curves of an evaluation, from bootstrap samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_embed.heads import metrics

GRID = np.linspace(0, 1, 201)


def roc_band(labels: np.ndarray, scores: np.ndarray, resamples: Sequence[np.ndarray]) -> Any:
    """Returns lower and upper ends of the sensitivity over a grid of 1 - specificity."""
    ranking = metrics.Ranking(labels, scores)

    def height(weights: np.ndarray) -> np.ndarray | None:
        _, true, false = ranking.curve(weights)
        if not true[-1] or not false[-1]:
            return None
        return np.interp(GRID, np.append(0, false / false[-1]), np.append(0, true / true[-1]))

    return _ends([found for w in resamples if (found := height(w)) is not None])


def precision_band(labels: np.ndarray, scores: np.ndarray, resamples: Sequence[np.ndarray]) -> Any:
    """Returns lower and upper ends of the precision over a grid of recall."""
    ranking = metrics.Ranking(labels, scores)

    def height(weights: np.ndarray) -> np.ndarray | None:
        _, true, false = ranking.curve(weights)
        if not true[-1] or not false[-1]:
            return None
        seen = true + false > 0
        recall, precision = true[seen] / true[-1], true[seen] / (true + false)[seen]
        return precision[np.minimum(np.searchsorted(recall, GRID - 1e-12), len(recall) - 1)]

    return _ends([found for w in resamples if (found := height(w)) is not None])


def calibration_band(
    labels: np.ndarray, scores: np.ndarray, resamples: Sequence[np.ndarray]
) -> Any:
    """Returns lower and upper ends of each bin's share of positives."""
    numbers = metrics.bin_numbers(scores)
    filled = np.bincount(numbers) > 0
    draws = []
    for weights in resamples:
        n = np.bincount(numbers, weights, len(filled))[filled]
        hits = np.bincount(numbers, weights * labels, len(filled))[filled]
        draws.append(np.divide(hits, n, out=np.full(len(n), np.nan), where=n > 0))
    return _ends(draws)


def _ends(draws: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    if not draws:
        return None
    low, high = np.nanquantile(np.stack(draws), [0.025, 0.975], axis=0)
    return low, high
