"""The curve of labels, on embeddings whose best possible AUROC is known."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from synthetic import bayes_auroc, clouds, in_memory

from cxr_embed.errors import UsageError
from cxr_embed.heads import few_shot

DISTANCE = 1.5


def _data(n: int = 5000, size: int = 8) -> Any:
    values, labels = clouds(n, size, DISTANCE, seed=4)
    splits = np.where(np.arange(n) < n // 2, "train", "test")
    return in_memory(values, labels, splits.tolist())


def _rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    options = few_shot.Options(
        "train",
        "test",
        max_per_class=1000,
        num_seeds=3,
        hidden_layer_sizes=(64, 32),
        num_steps=60,
        resamples=200,
    )
    return few_shot.run(*_data(), options)


@pytest.mark.parametrize("classifier", few_shot.CLASSIFIERS)
def test_the_end_of_the_curve_is_the_truth(files: dict[str, bytes], classifier: str) -> None:
    rows = [r for r in _rows(files["few_shot_summary.csv"]) if r["classifier"] == classifier]
    assert [int(r["n_per_class"]) for r in rows] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    low, high = float(rows[-1]["low"]), float(rows[-1]["high"])
    assert low <= bayes_auroc(DISTANCE) <= high
    assert high - low < 0.06  # an informative interval
    assert float(rows[0]["auroc"]) < low


def test_the_table_has_a_row_for_every_draw(files: dict[str, bytes]) -> None:
    rows = _rows(files["few_shot.csv"])
    assert list(rows[0]) == ["head", "classifier", "n_per_class", "seed", "auroc"]
    assert len(rows) == 2 * 11 * 3
    summary = {
        (r["classifier"], r["n_per_class"]): float(r["auroc"])
        for r in _rows(files["few_shot_summary.csv"])
    }
    of_point = [float(r["auroc"]) for r in rows if (r["classifier"], r["n_per_class"]) ==
                ("linear", "64")]  # fmt: skip
    assert summary["linear", "64"] == pytest.approx(np.mean(of_point))


def test_the_same_seed_gives_the_same_files() -> None:
    options = few_shot.Options(
        "train", "test", max_per_class=2, num_seeds=1, hidden_layer_sizes=(8, 4), resamples=20
    )
    data = _data(400)
    assert few_shot.run(*data, options) == few_shot.run(*data, options)


def test_no_test_image_and_no_other_label_is_looked_at() -> None:
    """Labels of the training split that are not drawn may be anything."""
    embeddings, labelled = _data(600)
    options = few_shot.Options(
        "train", "test", max_per_class=2, num_seeds=1, classifiers=("linear",), resamples=0
    )
    before = few_shot.run(embeddings, labelled, options)["few_shot.csv"]
    first = [
        np.random.default_rng([0, label]).permutation(
            labelled.rows[(labelled.splits == "train") & (labelled.labels[:, 0] == label)]
        )[:2]
        for label in (0, 1)
    ]
    drawn = np.concatenate(first)
    scale = few_shot.network.standardisation_of(
        embeddings, labelled.rows[labelled.splits == "train"]
    )
    x = few_shot.linear.scaled(embeddings.take(drawn), scale)
    line, _ = few_shot.linear.solve(x, np.array([0, 0, 1, 1]), few_shot.linear.DEFAULT_C, "none")
    test = labelled.rows[labelled.splits == "test"]
    scores = few_shot.linear.scaled(embeddings.take(test), scale) @ line.weights
    expected = few_shot.metrics.auroc(labelled.labels[labelled.splits == "test", 0], scores)
    assert float(_rows(before)[-1]["auroc"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("largest", "found"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5])])
def test_sizes(largest: int, found: list[int]) -> None:
    assert few_shot.sizes(largest) == found


def test_mistakes() -> None:
    embeddings, labelled = _data(40)
    with pytest.raises(UsageError, match="--max_per_class 999: 'train' has"):
        few_shot.run(embeddings, labelled, few_shot.Options("train", "test", max_per_class=999))
    labelled.labels[labelled.splits == "test"] = 1
    with pytest.raises(UsageError, match="split 'test' lacks positive or negative"):
        few_shot.run(embeddings, labelled, few_shot.Options("train", "test"))
