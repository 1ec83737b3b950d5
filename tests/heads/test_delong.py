"""DeLong's test, against its definition written out, and against what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cxr_embed.heads.delong import auroc_covariance, delong_test


def _placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structural components as DeLong et al. define them: every positive against every negative."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return wins.mean(axis=1), wins.mean(axis=0)


def _by_definition(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[float, float, float]:
    """Returns both AUROCs and the p-value, equations 4 to 7 of the paper written out."""
    (v10, v01), (w10, w01) = _placements(labels, first), _placements(labels, second)
    m, n = len(v10), len(v01)

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a - a.mean()) * (b - b.mean())).sum() / (len(a) - 1))

    variance = (
        (covariance(v10, v10) + covariance(w10, w10) - 2 * covariance(v10, w10)) / m
        + (covariance(v01, v01) + covariance(w01, w01) - 2 * covariance(v01, w01)) / n
    )  # fmt: skip
    z = (v10.mean() - w10.mean()) / np.sqrt(variance)
    return float(v10.mean()), float(w10.mean()), float(2 * stats.norm.sf(abs(z)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_it_equals_its_definition(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(70) < 0.3).astype(float)
    first, second = rng.standard_normal((2, 70)) + [[1.2], [0.6]] * labels
    if ties:
        first, second = first.round(), second.round(1)
    found = delong_test(labels, first, second)
    one, other, p = _by_definition(labels, first, second)
    assert (found.first, found.second) == (pytest.approx(one), pytest.approx(other))
    assert found.p == pytest.approx(p, rel=1e-9)
    assert found.difference == pytest.approx(one - other)
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_two_equal_classifiers_are_found_different_as_often_as_p_says() -> None:
    """Under the null hypothesis p is uniform."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 1.0], 60)
    values = []
    for _ in range(400):
        shared = rng.standard_normal(120) + labels
        first, second = shared + rng.standard_normal((2, 120))
        values.append(delong_test(labels, first, second).p)
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_the_variance_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0.0, 1.0], [80, 50])
    found, estimated = [], []
    for _ in range(300):
        scores = rng.standard_normal((2, 130)) + labels
        aurocs, covariance = auroc_covariance(labels, scores)
        found.append(aurocs)
        estimated.append(covariance)
    np.testing.assert_allclose(
        np.diag(np.cov(np.array(found).T)), np.diag(np.mean(estimated, axis=0)), rtol=0.2
    )


def test_the_same_scores_do_not_differ() -> None:
    labels, scores = np.array([0, 1, 0, 1.0]), np.array([0.1, 0.4, 0.5, 0.9])
    found = delong_test(labels, scores, scores * 2)
    assert (found.difference, found.p) == (0, 1)
    assert np.isnan(found.z)


def test_it_takes_two_images_of_each_class() -> None:
    with pytest.raises(ValueError, match="not 1 and 2"):
        delong_test(np.array([1, 0, 0]), np.arange(3), np.arange(3))
