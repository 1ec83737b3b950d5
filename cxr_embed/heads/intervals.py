"""95 % intervals by a bootstrap over patients.

Images of one patient are alike, so that resampling images would make the intervals too narrow: the
bootstrap draws patients, and all images of a patient come along. A resample is a weight for each
image, the number of times its patient was drawn.

`scipy.stats.bootstrap` and `sklearn.utils.resample` draw rows, not groups of rows, and copy them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure and its interval; NaN where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def as_json(self) -> dict[str, float | None]:
        """Returns the estimate for JSON, which has no NaN."""
        return {name: number(value) for name, value in self._asdict().items()}


def number(value: float) -> float | None:
    """Returns a float for JSON: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def resamples(groups: np.ndarray, times: int, seed: int) -> Iterator[np.ndarray]:
    """Yields weights of images, float64 (n,), each a bootstrap resample of patients.

    Args:
        groups: (n,), the patient of each image.
        times: how many resamples.
        seed: the same seed, the same resamples.
    """
    rng = np.random.default_rng(seed)
    _, numbers = np.unique(groups, return_inverse=True)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    for _ in range(times if count else 0):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        yield drawn[numbers].astype(np.float64)


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """Returns the interval that holds the middle 95 % of draws, undefined ones left out."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap(
    figures: Callable[[np.ndarray | None], dict[str, float]],
    groups: np.ndarray,
    times: int,
    seed: int,
) -> dict[str, Estimate]:
    """Returns several figures with their intervals, all from the same resamples.

    Args:
        figures: gives the figures by name for weights of the images; None is one each. A name may
            be missing from a resample.
        groups: (n,), the patient of each image.
        times: how many resamples; 0 gives no intervals.
        seed: of the resamples.
    """
    values = figures(None)
    draws = {name: np.full(times, np.nan) for name in values}
    for at, weights in enumerate(resamples(groups, times, seed)):
        for name, value in figures(weights).items():
            draws[name][at] = value
    return {
        name: Estimate(value, *percentile_interval(draws[name])) for name, value in values.items()
    }
