"""95 % intervals by a bootstrap over patients.

Images of one patient are alike, so that resampling images would make the intervals too narrow: the
bootstrap draws patients, and all images of a patient come along. A resample is a weight for each
image, the number of times its patient was drawn.

`scipy.stats.bootstrap` and `sklearn.utils.resample` draw rows, not groups of rows, and copy them.

Percentiles of the draws alone cover too little where few patients have a finding, 89 to 94 %;
`share_interval` covers 93 to 97 % there (tests/heads/test_coverage.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


UNDEFINED = Estimate(float("nan"))


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


def deciding_patients(labels: np.ndarray, groups: np.ndarray) -> int:
    """Returns how many patients decide an AUROC: those with an image of the rarer class."""
    return min(len(np.unique(groups[labels == label])) for label in (0, 1))


def share_interval(value: float, draws: np.ndarray, patients: int) -> tuple[float, float]:
    """Returns the interval of a figure that lies between 0 and 1, such as an AUROC or a rate.

    The standard error is that of the draws' logits, and the quantiles are Student's: draws of few
    patients vary too little, by (n - 1) / n (T. C. Hesterberg, "What teachers should know about
    the bootstrap", The American Statistician 2015). Half an observation is added on both sides, as
    A. Agresti, "Categorical Data Analysis", does it for a logit, so that 0 and 1 have one, too.
    At 0 or 1 the end is the exact binomial one for as many independent patients.

    Args:
        value: the figure, 0..1.
        draws: of the bootstrap; undefined ones are left out.
        patients: how many decide the figure: for an AUROC those with an image of the rarer class.
    """
    known = draws[np.isfinite(draws)]
    if not len(known) or not np.isfinite(value) or patients < 1:
        return float("nan"), float("nan")
    if not 0 < value < 1:
        farthest = ((1 - LEVEL) / 2) ** (1 / patients)
        return (farthest, 1.0) if value >= 1 else (0.0, 1 - farthest)
    variance = float(known.var())
    if patients < 2 or variance <= 0:
        return percentile_interval(known)
    # As many independent images would vary as much.
    images = max(value * (1 - value) / variance, 1.0)

    def logit(share: np.ndarray | float) -> np.ndarray:
        return np.log((np.multiply(share, images) + 0.5) / (np.multiply(1 - share, images) + 0.5))

    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, patients - 1)) * np.sqrt(patients / (patients - 1))
    ends = logit(value) + np.array([-1, 1]) * quantile * logit(known).std()
    shares = ((images + 1) / (1 + np.exp(-ends)) - 0.5) / images
    low, high = np.clip(shares, 0, 1)
    return float(low), float(high)


def bootstrap(
    figures: Callable[[np.ndarray | None], dict[str, float]],
    groups: np.ndarray,
    times: int,
    seed: int,
    shares: Mapping[str, int] | None = None,
) -> dict[str, Estimate]:
    """Returns several figures with their intervals, all from the same resamples.

    Args:
        figures: gives the figures by name for weights of the images; None is one each. A name may
            be missing from a resample.
        groups: (n,), the patient of each image.
        times: how many resamples; 0 gives no intervals.
        seed: of the resamples.
        shares: the figures that lie between 0 and 1, each with the number of patients that decide
            it (see `share_interval`); the others have the percentiles of the draws.
    """
    values = figures(None)
    draws = {name: np.full(times, np.nan) for name in values}
    for at, weights in enumerate(resamples(groups, times, seed)):
        for name, value in figures(weights).items():
            draws[name][at] = value
    return {
        name: Estimate(
            value,
            *share_interval(value, draws[name], shares[name])
            if shares and name in shares
            else percentile_interval(draws[name]),
        )
        for name, value in values.items()
    }
