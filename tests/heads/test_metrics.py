"""The figures equal scikit-learn's, ties, weights and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import calibration as sk_calibration
from sklearn import linear_model
from sklearn import metrics as sk

from cxr_embed.heads import metrics


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of both classes, scores with many ties or with none, and bootstrap weights."""
    n = draw(st.integers(2, 60))
    labels = draw(arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))
    labels[:2] = 0, 1
    few = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])
    any_score = st.floats(0, 1, width=32)
    scores = draw(arrays(np.float64, n, elements=draw(st.sampled_from([few, any_score]))))
    weights = draw(arrays(np.float64, n, elements=st.integers(0, 4).map(float)))
    weights[:2] += 1
    return labels, scores, weights


@given(scored())
def test_they_equal_scikit_learns(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, _ = case
    exactly = {"abs": 1e-12, "rel": 0}
    assert metrics.auroc(labels, scores) == pytest.approx(
        sk.roc_auc_score(labels, scores), **exactly
    )
    assert metrics.auprc(labels, scores) == pytest.approx(
        sk.average_precision_score(labels, scores), **exactly
    )
    assert metrics.brier(labels, scores) == pytest.approx(
        sk.brier_score_loss(labels, scores), **exactly
    )


@given(scored())
def test_weights_are_scikit_learns_sample_weights(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, weights = case
    ranking = metrics.Ranking(labels, scores)
    assert ranking.auroc(weights) == pytest.approx(
        sk.roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12
    )
    assert ranking.auprc(weights) == pytest.approx(
        sk.average_precision_score(labels, scores, sample_weight=weights), abs=1e-12
    )
    assert metrics.brier(labels, scores, weights) == pytest.approx(
        sk.brier_score_loss(labels, scores, sample_weight=weights), abs=1e-12
    )


@given(scored())
def test_a_weight_is_a_repetition(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, weights = case
    times = weights.astype(int)
    repeated = np.repeat(labels, times), np.repeat(scores, times)
    ranking = metrics.Ranking(labels, scores)
    assert ranking.auroc(weights) == pytest.approx(metrics.auroc(*repeated), abs=1e-12)
    assert ranking.auprc(weights) == pytest.approx(metrics.auprc(*repeated), abs=1e-12)


@given(scored())
def test_the_curve_equals_scikit_learns(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, _ = case
    thresholds, true, false = metrics.Ranking(labels, scores).curve()
    x, y, at = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal(thresholds, at[1:])
    np.testing.assert_allclose(true / true[-1], y[1:], atol=1e-12)
    np.testing.assert_allclose(false / false[-1], x[1:], atol=1e-12)


def test_a_large_case_with_float32_scores() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(20_000) < 0.1).astype(float)
    scores = rng.standard_normal(20_000).astype(np.float32) + labels
    assert metrics.auroc(labels, scores) == pytest.approx(
        sk.roc_auc_score(labels, scores), abs=1e-12
    )
    assert metrics.auprc(labels, scores) == pytest.approx(
        sk.average_precision_score(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize("labels", [[], [1.0, 1.0], [0.0]])
def test_one_class_has_no_area(labels: list[float]) -> None:
    scores = np.linspace(0, 1, len(labels))
    assert np.isnan(metrics.auroc(np.array(labels), scores))
    assert np.isnan(metrics.auprc(np.array(labels), scores))


def test_labels_and_scores_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="must be alike"):
        metrics.Ranking(np.zeros(3), np.zeros(4))


def test_calibration_bins_equal_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random(5000)
    labels = (rng.random(5000) < scores**2).astype(float)
    bins = metrics.calibration_bins(labels, scores)
    observed, predicted = sk_calibration.calibration_curve(
        labels, scores, n_bins=10, strategy="quantile"
    )
    np.testing.assert_allclose([one.observed for one in bins], observed, atol=1e-12)
    np.testing.assert_allclose([one.predicted for one in bins], predicted, atol=1e-12)
    assert {one.n for one in bins} == {500.0}
    gaps = np.abs(observed - predicted)
    assert metrics.expected_calibration_error(labels, scores) == pytest.approx(gaps.mean())


def test_equal_scores_share_a_bin() -> None:
    scores = np.repeat([0.2, 0.7], 50)
    bins = metrics.calibration_bins((np.arange(100) % 2).astype(float), scores)
    assert [(one.predicted, one.n) for one in bins] == [
        (pytest.approx(0.2), 50.0), (pytest.approx(0.7), 50.0),
    ]  # fmt: skip


def test_the_calibration_line_equals_a_logistic_regression() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-(0.5 * logits - 0.7)))).astype(float)
    weights = rng.integers(0, 3, 4000).astype(float)
    scores = 1 / (1 + np.exp(-logits))
    fitted = linear_model.LogisticRegression(C=np.inf, tol=1e-10).fit(
        logits[:, None], labels, sample_weight=weights
    )
    intercept, slope = metrics.calibration_line(labels, scores, weights)
    assert intercept == pytest.approx(fitted.intercept_[0], abs=1e-5)
    assert slope == pytest.approx(fitted.coef_[0, 0], abs=1e-5)
    assert slope == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("spread", [0.1, 4.0, 30.0])
def test_a_line_is_found_although_the_scores_hardly_rank_the_classes(spread: float) -> None:
    rng = np.random.default_rng(0)
    x = spread * rng.standard_normal(500)
    labels = (rng.random(500) < 1 / (1 + np.exp(1 - 0.3 * x / spread))).astype(float)
    weights = np.bincount(rng.integers(500, size=500), minlength=500).astype(float)
    fitted = linear_model.LogisticRegression(
        C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(x[:, None], labels, sample_weight=weights)
    line = metrics.logistic_line(labels, x, weights)
    assert line == pytest.approx((fitted.intercept_[0], fitted.coef_[0, 0]), abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "x", "weights"),
    [
        ([0, 0, 1, 1], [1, 2, 2, 3], [1, 1, 1, 1]),
        ([1, 1, 0, 0], [1, 2, 3, 4], [1, 1, 1, 1]),
        ([0, 1, 0, 1], [1, 2, 3, 4], [1, 1, 0, 1]),
        ([0, 1, 0, 1], [2, 2, 2, 2], [1, 1, 1, 1]),
        ([1, 1, 1, 1], [1, 2, 3, 4], [1, 1, 1, 1]),
        ([0, 1, 0, 1], [1, 2, 3, 4], [0, 0, 0, 0]),
    ],
    ids=["they share a score", "reversed", "without weight 0", "one score", "one class", "none"],
)
def test_no_line_fits_best(labels: list[int], x: list[int], weights: list[int]) -> None:
    line = metrics.logistic_line(*(np.array(a, np.float64) for a in (labels, x, weights)))
    assert np.isnan(line).all()


def test_no_calibration_line_through_separated_classes() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert np.isnan(metrics.calibration_line((scores > 0.5).astype(float), scores)).all()
