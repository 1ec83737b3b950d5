"""Calibration on the tune split: better probabilities, the same ranks, nothing from nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_embed.heads.calibration import Calibration, akaike_weights, calibrate
from cxr_embed.heads.metrics import auroc


def _overconfident(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels, and logits three times too large and shifted by 1."""
    rng = np.random.default_rng(seed)
    true = 1.5 * rng.standard_normal(n) - 1
    labels = (rng.random(n) < 1 / (1 + np.exp(-true))).astype(float)
    return labels, 3 * true + 1


def test_it_finds_the_temperature_and_the_offset() -> None:
    labels, logits = _overconfident(40_000)
    found, loss = calibrate(labels, logits)
    assert found.slope == pytest.approx(1 / 3, rel=0.03)
    assert found.offset == pytest.approx(-1 / 3, abs=0.05)
    better = 1 / (1 + np.exp(-found.apply(logits)))
    assert loss == pytest.approx(sk.log_loss(labels, better), rel=1e-6)
    assert loss < sk.log_loss(labels, 1 / (1 + np.exp(-logits))) - 0.1
    assert auroc(labels, better) == auroc(labels, logits)
    np.testing.assert_allclose(found.undo(better), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_loss_does_not_depend_on_the_scale_of_the_logits() -> None:
    labels, logits = _overconfident(300)
    losses = [calibrate(labels, scale * logits + 5)[1] for scale in (1e-6, 1, 1e4)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_unknown_labels_are_left_out() -> None:
    labels, logits = _overconfident(300)
    holes = np.where(np.arange(600) % 2, np.nan, np.repeat(labels, 2))
    assert calibrate(holes, np.repeat(logits, 2)) == calibrate(labels, logits)


def test_a_few_separated_images_make_no_head_certain() -> None:
    found, _ = calibrate(np.array([0, 0, 0, 1, 1, 1.0]), np.array([-3, -2, -1, 1, 2, 3.0]))
    assert 0.02 < 1 / (1 + np.exp(-found.apply(-3.0))) < 0.2


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        ([0, 0, 0, 0], [1, 2, 3, 4]),  # one class
        ([0, 1, 0, 1], [2, 2, 2, 2]),  # nothing to scale
        ([1, 1, 0, 0], [1, 2, 3, 4]),  # a negative slope would turn the ranks round
        ([1, 1, 0, 0], [np.nan, 2, 3, 4]),  # a network that has diverged
    ],
)
def test_what_cannot_be_calibrated_stays_as_it_is(labels: list[int], logits: list[float]) -> None:
    found, loss = calibrate(np.array(labels, float), np.array(logits, float))
    assert found == Calibration()
    assert loss in (0.0, pytest.approx(np.log(2)))


def test_balanced_classes_are_balanced_in_the_calibration() -> None:
    labels, logits = _overconfident(20_000)
    found, _ = calibrate(labels, logits, "balanced")
    probabilities = 1 / (1 + np.exp(-found.apply(logits)))
    weights = np.where(labels == 1, 1 / labels.mean(), 1 / (1 - labels.mean()))
    assert np.average(probabilities, weights=weights) == pytest.approx(0.5, abs=0.01)


def test_weights_of_models_are_their_likelihoods() -> None:
    found = akaike_weights(np.array([2000.0, 2000 + np.log(3), 3000]))
    np.testing.assert_allclose(found, [0.75, 0.25, 0], atol=1e-12)
