"""What a head's probabilities were before its calibration is measured beside what they are."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_embed.heads import metrics, reliability
from cxr_embed.heads.calibration import calibrate

RNG = np.random.default_rng(0)
LOGITS = 4 * RNG.standard_normal(3000)  # three times too large, and shifted
LABELS = (RNG.random(3000) < 1 / (1 + np.exp(1 - LOGITS / 3))).astype(float)


def test_the_slope_before_calibration_is_the_one_of_the_plain_logits() -> None:
    calibration, _ = calibrate(LABELS, LOGITS)
    scores = 1 / (1 + np.exp(-calibration.apply(LOGITS)))
    found = reliability.before(
        LABELS, scores, np.arange(3000), calibration, resamples=50, seed=0
    )  # fmt: skip
    intercept, slope = metrics.calibration_line(LABELS, 1 / (1 + np.exp(-LOGITS)))
    assert found["calibration_slope"]["value"] == pytest.approx(slope, abs=1e-6)
    assert found["calibration_intercept"]["value"] == pytest.approx(intercept, abs=1e-6)
    assert slope == pytest.approx(1 / 3, abs=0.05)
    assert found["brier"]["low"] < found["brier"]["value"] < found["brier"]["high"]
    assert found["brier"]["value"] > metrics.brier(LABELS, scores)


def test_a_folder_without_a_head_has_no_calibration(tmp_path: object) -> None:
    assert reliability.read_calibrations(str(tmp_path), ("A",)) == {}
