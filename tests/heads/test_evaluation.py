"""Evaluation: what is measured, where thresholds are from, subgroups, comparisons."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_embed.errors import UsageError
from cxr_embed.heads import evaluation, evaluation_lines
from cxr_embed.heads.evaluation import Options
from cxr_embed.heads.operating_points import parse_rule
from cxr_embed.heads.predictions import Predictions

RULES = tuple(parse_rule(text) for text in ("youden", "sensitivity=0.9", "threshold=0.5"))
OPTIONS = Options("test", "tune", RULES, ("sex",), resamples=60)


def _predictions(n: int = 400, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 2)) < [0.4, 0.2]).astype(np.float32)
    logits = rng.standard_normal((n, 2)) * 1.2 + 2 * labels - 1
    labels[::9, 1] = np.nan
    return Predictions(
        ("A", "B"), [f"i{row}" for row in range(n)], [f"x/i{row}.dcm" for row in range(n)],
        1 / (1 + np.exp(-logits)), labels,
        np.where(np.arange(n) % 4 == 0, "tune", "test").astype(object), np.arange(n) // 2,
        {"sex": np.where(np.arange(n) % 3 == 0, "F", "M").astype(object)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return evaluation.evaluate(_predictions(), OPTIONS)


def test_figures_are_of_the_split_and_equal_scikit_learns(found: dict[str, Any]) -> None:
    predictions = _predictions()
    for number, head in enumerate(predictions.heads):
        at = (predictions.splits == "test") & ~np.isnan(predictions.labels[:, number])
        labels, scores = predictions.labels[at, number], predictions.probabilities[at, number]
        assert found[head]["n"] == at.sum()
        assert found[head]["n_positive"] == labels.sum()
        assert found[head]["patients"] == len(set(predictions.groups[at].tolist()))
        for name, function in (("auroc", sk.roc_auc_score), ("auprc", sk.average_precision_score),
                               ("brier", sk.brier_score_loss)):  # fmt: skip
            estimate = found[head][name]
            assert estimate["value"] == pytest.approx(function(labels, scores), abs=1e-12)
            assert estimate["low"] < estimate["value"] < estimate["high"]


def test_thresholds_are_chosen_on_the_tune_split(found: dict[str, Any]) -> None:
    predictions = _predictions()
    points = found["A"]["operating_points"]
    assert [(p["rule"], p["chosen_on"]) for p in points] == [
        ("youden", "tune"), ("sensitivity=0.9", "tune"), ("threshold=0.5", "given"),
    ]  # fmt: skip
    tune = predictions.splits == "tune"
    labels, scores = predictions.labels[tune, 0], predictions.probabilities[tune, 0]
    assert (scores[labels == 1] >= points[1]["threshold"]).mean() >= 0.9
    test = predictions.splits == "test"
    labels, scores = predictions.labels[test, 0], predictions.probabilities[test, 0]
    assert points[2]["sensitivity"]["value"] == pytest.approx((scores[labels == 1] >= 0.5).mean())


def test_subgroups_are_measured_each_on_its_own(found: dict[str, Any]) -> None:
    predictions = _predictions()
    for value in "FM":
        part = found["A"]["subgroups"]["sex"][value]
        at = (predictions.splits == "test") & (predictions.extras["sex"] == value)
        assert part["n"] == at.sum()
        assert part["auroc"]["value"] == pytest.approx(
            sk.roc_auc_score(predictions.labels[at, 0], predictions.probabilities[at, 0])
        )


def test_the_tables_hold_every_figure(found: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(evaluation.table(found, subgroups=False).decode())))
    assert tuple(rows[0]) == evaluation.TABLE_COLUMNS
    assert len(rows) == 2 * (6 + 3 * 4)
    assert float(rows[0]["estimate"]) == found["A"]["auroc"]["value"]
    assert any(row["metric"] == "specificity at sensitivity=0.9" for row in rows)
    parts = list(csv.DictReader(io.StringIO(evaluation.table(found, subgroups=True).decode())))
    assert {(row["column"], row["value"]) for row in parts} == {("sex", "F"), ("sex", "M")}


def test_the_lines_for_people(found: dict[str, Any]) -> None:
    lines = list(evaluation_lines.lines(found))
    assert lines[0].startswith("A, split test: 300 images, ")
    assert any("chosen on tune" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_a_subgroup_of_one_class_is_null_and_not_an_error() -> None:
    predictions = _predictions(60)
    predictions.extras["sex"] = np.where(predictions.labels[:, 0] == 1, "F", "M").astype(object)
    part = evaluation.evaluate(predictions, OPTIONS)["A"]["subgroups"]["sex"]["F"]
    assert part["auroc"] == {"value": None, "low": None, "high": None}
    assert part["calibration_slope"]["value"] is None
    assert part["brier"]["value"] is not None
    assert part["operating_points"][2]["specificity"]["value"] is None


def test_comparison_of_a_head_with_itself_and_with_noise() -> None:
    first, noise = _predictions(), _predictions()
    same = evaluation.compare(first, first, "A", OPTIONS)
    assert (same["difference"], same["delong"]["p"]) == (0, 1)
    noise.probabilities = np.random.default_rng(1).random(noise.probabilities.shape)
    other = evaluation.compare(first, noise, "A", OPTIONS)
    assert other["delong"]["p"] < 1e-6
    assert other["bootstrap_by_patient"]["low"] > 0.1
    assert other["difference"] == pytest.approx(other["auroc"] - other["auroc_other"])


def test_a_comparison_is_over_the_images_that_both_have() -> None:
    first, second = _predictions(), _predictions()
    keep = np.arange(0, 400, 5)[::-1]
    second.image_ids = [second.image_ids[row] for row in keep]
    second.probabilities = second.probabilities[keep]
    found = evaluation.compare(first, second, "A", OPTIONS)
    assert found["n"] == (first.splits[keep] == "test").sum()
    assert found["difference"] == 0
    second.image_ids = [f"other{row}" for row in range(80)]
    with pytest.raises(UsageError, match="share 0 images"):
        evaluation.compare(first, second, "A", OPTIONS)


def test_no_threshold_from_one_class() -> None:
    predictions = _predictions(60)
    predictions.labels[predictions.splits == "tune"] = 0
    with pytest.raises(UsageError, match="no threshold of A can be chosen on 'tune'"):
        evaluation.evaluate(predictions, OPTIONS)


def test_pictures() -> None:
    pictures = evaluation.pictures(_predictions(), OPTIONS)
    assert list(pictures) == [
        "roc.png", "pr.png", "calibration.png", "decision_curve.png", "decision_curve.csv",
    ]  # fmt: skip
    plots = [data for name, data in pictures.items() if name.endswith(".png")]
    assert all(data.startswith(b"\x89PNG") and len(data) > 10_000 for data in plots)
    assert pictures == evaluation.pictures(_predictions(), OPTIONS)
