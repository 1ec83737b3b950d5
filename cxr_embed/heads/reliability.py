"""Reliability of a head before its calibration, beside that of the probabilities it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import intervals, metrics, saved
from cxr_embed.heads.calibration import Calibration

FIGURES = ("brier", "calibration_intercept", "calibration_slope", "expected_calibration_error")


def read_calibrations(folder: str, heads: tuple[str, ...]) -> dict[str, Calibration]:
    """Returns the calibrations of a trained head; none where there is no such head in a folder."""
    try:
        found = saved.read_head(folder)
    except UsageError:
        return {}
    if found.heads != heads:
        return {}
    return {head: Calibration(**values) for head, values in found.calibration.items()}


def before(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    calibration: Calibration,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Returns the metrics of calibration of the probabilities before it, ready for JSON.

    Args:
        labels: (n,), 0 or 1.
        scores: (n,), calibrated probabilities.
        groups: (n,), patients.
        calibration: what made the scores.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    plain = calibration.undo(scores)

    def figures(weights: np.ndarray | None) -> dict[str, float]:
        intercept, slope = metrics.calibration_line(labels, plain, weights)
        return {
            "brier": metrics.brier(labels, plain, weights),
            "calibration_intercept": intercept,
            "calibration_slope": slope,
            "expected_calibration_error": metrics.expected_calibration_error(
                labels, plain, weights
            ),
        }

    shares = {"brier": len(np.unique(groups))}
    found = intervals.bootstrap(figures, groups, resamples, seed, shares)
    return {name: found[name].as_json() for name in FIGURES}


def plain_scores(
    shown: Mapping[str, tuple[np.ndarray, np.ndarray]], calibrations: Mapping[str, Calibration]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns labels and probabilities before calibration of the heads that have one."""
    return {
        head: (labels, calibrations[head].undo(scores))
        for head, (labels, scores) in shown.items()
        if head in calibrations
    }
