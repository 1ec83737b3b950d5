"""Bootstrap by patient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cxr_embed.heads import intervals, metrics


def test_all_images_of_a_patient_come_along() -> None:
    groups = np.array([7, 3, 7, 7, 3, 9])
    for weights in intervals.resamples(groups, 50, 0):
        assert len(set(weights[groups == 7])) == 1
        assert len(set(weights[groups == 3])) == 1
        assert weights[[0, 1, 5]].sum() == 3  # as many patients as there are


def test_the_same_seed_gives_the_same_resamples() -> None:
    groups = np.arange(20)
    first, again, other = (
        np.stack(list(intervals.resamples(groups, 5, seed))) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_copies_of_images_do_not_narrow_the_interval() -> None:
    """Ten images of each patient carry no more information than one: only the patient counts."""
    rng = np.random.default_rng(0)
    labels = (rng.random(80) < 0.5).astype(float)
    scores = rng.standard_normal(80) + labels

    def interval(times: int) -> intervals.Estimate:
        ranking = metrics.Ranking(np.repeat(labels, times), np.repeat(scores, times))
        return intervals.bootstrap(
            lambda weights: {"auroc": ranking.auroc(weights)},
            np.repeat(np.arange(80), times), 300, 0,
        )["auroc"]  # fmt: skip

    once, ten_times = interval(1), interval(10)
    assert ten_times == pytest.approx(once, abs=1e-9)
    assert once.high - once.low > 0.1


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """The mean of an exponential variable, 200 times over: 95 % within three standard errors."""
    rng = np.random.default_rng(3)
    covered = 0
    for run in range(200):
        values = rng.exponential(1.0, 60)
        estimate = intervals.bootstrap(
            lambda w, values=values: {"mean": float(np.average(values, weights=w))},
            np.arange(60), 200, run,
        )["mean"]  # fmt: skip
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.95 * 200 - 3 * np.sqrt(200 * 0.95 * 0.05) - 4 <= covered <= 200


def test_resamples_of_one_class_are_left_out() -> None:
    labels, scores = np.array([1.0, 0, 0]), np.array([0.9, 0.1, 0.2])
    ranking = metrics.Ranking(labels, scores)
    estimate = intervals.bootstrap(
        lambda weights: {"auroc": ranking.auroc(weights)}, np.arange(3), 100, 0
    )["auroc"]
    assert estimate == (1.0, 1.0, 1.0)


def test_a_share_of_1_or_0_has_the_exact_binomial_end() -> None:
    draws = np.ones(50)
    low, high = intervals.share_interval(1.0, draws, 20)
    assert (low, high) == (pytest.approx(proportion_low(20)), 1.0)
    assert intervals.share_interval(0.0, 0 * draws, 20) == (0.0, pytest.approx(1 - low))


def proportion_low(n: int) -> float:
    return float(stats.binomtest(n, n).proportion_ci(0.95, "exact").low)


@pytest.mark.parametrize("value", [0.02, 0.5, 0.99])
def test_a_share_has_an_interval_within_0_and_1(value: float) -> None:
    rng = np.random.default_rng(0)
    draws = rng.binomial(50, value, 400) / 50
    low, high = intervals.share_interval(value, draws, 40)
    assert 0 <= low < value < high <= 1
    mirrored = intervals.share_interval(1 - value, 1 - draws, 40)
    assert mirrored == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_with_many_patients_it_is_the_normal_interval() -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.001, 20_000)
    found = intervals.share_interval(0.8, draws, 10_000)
    assert found == pytest.approx((0.8 - 0.00196, 0.8 + 0.00196), abs=3e-5)


def test_no_resamples_no_interval() -> None:
    estimate = intervals.bootstrap(lambda _: {"x": 0.5}, np.arange(3), 0, 0)["x"]
    assert estimate.as_json() == {"value": 0.5, "low": None, "high": None}
