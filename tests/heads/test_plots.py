"""Pictures are drawn whatever comes: many heads, one class, one epoch."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cxr_embed.heads import bands, plots


def _heads(n: int, images: int = 50) -> dict[str, plots.Scored]:
    rng = np.random.default_rng(0)
    labels = (np.arange(images) % 3 == 0).astype(float)
    return {f"HEAD_{k}": (labels, np.clip(rng.random(images), 0, 1)) for k in range(n)}


def _size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image.size


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall, plots.calibration])
def test_many_heads_get_their_legend_beside_the_picture(draw: object) -> None:
    few, many = (_size(draw(_heads(n), "test split")) for n in (2, 14))  # type: ignore[operator]
    assert many[0] > few[0]
    assert many[1] == few[1]


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall, plots.calibration])
@pytest.mark.parametrize("labels", [[], [1.0, 1.0]])
def test_one_class_or_nothing(draw: object, labels: list[float]) -> None:
    scored = {"A": (np.array(labels), np.array([0.2, 0.4][: len(labels)]))}
    assert _size(draw(scored, "test split"))[0] > 100  # type: ignore[operator]


def test_a_curve_of_one_epoch() -> None:
    curve = plots.TrainingCurve("epoch", [1], {"training": [0.7], "tune": [0.6]}, {"A": [0.5]}, [1])
    assert _size(plots.training_curve(curve))[0] > 100


def test_bands_hold_the_curve() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(300) < 0.4).astype(float)
    scores = np.clip(0.3 * labels + rng.random(300) * 0.7, 0, 1)
    resamples = list(np.random.default_rng(2).multinomial(300, np.full(300, 1 / 300), 200) * 1.0)
    for band in (bands.roc_band, bands.precision_band, bands.calibration_band):
        low, high = band(labels, scores, resamples)
        assert (low <= high).all()
    low, high = bands.roc_band(labels, scores, resamples)
    truth = np.array([(scores[labels == 1] >= t).mean() for t in
                      np.quantile(scores[labels == 0], 1 - np.linspace(0, 1, 201))])  # fmt: skip
    assert ((low - 0.03 <= truth) & (truth <= high + 0.03)).mean() > 0.95
