"""DeLong's test: whether two classifiers' AUROCs on the same images differ by more than chance.

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated
receiver operating characteristic curves: a nonparametric approach", Biometrics 1988; placements
from midranks as in X. Sun, W. Xu, IEEE Signal Processing Letters 2014. Neither scikit-learn nor
SciPy has this test; SciPy computes the midranks and NumPy the covariance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class DeLong(NamedTuple):
    """The result of the test.

    Attributes:
        first: AUROC of the first classifier.
        second: AUROC of the second.
        difference: first - second.
        low: lower end of the difference's 95 % interval.
        high: its upper end.
        z: the difference in standard errors; NaN where both rank alike.
        p: two-sided.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    z: float
    p: float


def delong_test(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> DeLong:
    """Compares two classifiers on the same images, which are taken as independent of each other.

    Args:
        labels: (n,), 0 or 1, at least two images of each class.
        first: (n,), scores of one classifier.
        second: (n,), scores of the other.

    Raises:
        ValueError: fewer than two images of a class.
    """
    aurocs, covariance = auroc_covariance(labels, np.stack([first, second]))
    difference = float(aurocs[0] - aurocs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = math.sqrt(max(variance, 0.0))
    if error < 1e-12:
        z, p = (float("nan"), 1.0) if abs(difference) < 1e-12 else (math.inf, 0.0)
    else:
        z = difference / error
        p = math.erfc(abs(z) / math.sqrt(2))
    half = 1.959963984540054 * error
    return DeLong(
        float(aurocs[0]), float(aurocs[1]), difference, difference - half, difference + half, z, p
    )


def auroc_covariance(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns AUROCs and their covariance.

    Args:
        labels: (n,), 0 or 1.
        scores: (k, n), of k classifiers.

    Returns:
        (k,) and (k, k), float64.

    Raises:
        ValueError: fewer than two images of a class.
    """
    from scipy.stats import rankdata

    positive = np.asarray(labels) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        raise ValueError(f"DeLong's test takes two images of each class, not {m} and {n}")
    scores = np.asarray(scores, np.float64)
    all_ranks = rankdata(scores, axis=1)
    # The share of negatives below each positive, and of positives above each negative; ties half.
    of_positives = (all_ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n
    of_negatives = 1 - (all_ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / m
    covariance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    return of_positives.mean(axis=1), np.atleast_2d(covariance)
