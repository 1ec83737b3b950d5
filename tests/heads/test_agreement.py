"""Neighbours from other patients, against chance: counted, and without any relation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cxr_embed.heads import agreement
from cxr_embed.heads.agreement import Agreement, Settings


def sets(patients: int, images: int, strength: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Returns embeddings, labels and patients; images of a patient are much alike."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), images)
    labels = (rng.random(patients) < 0.3).astype(np.float64)[groups]
    values = rng.standard_normal((patients, 16))[groups]
    values += 0.1 * rng.standard_normal(values.shape)
    values[:, 0] += strength * labels
    return values.astype(np.float32), labels, groups


def measured(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray, settings: Settings, *log: Any
) -> Agreement:
    names = ["a"]
    columns = labels[:, np.newaxis]
    logs = {"log": log[0]} if log else {}
    return agreement.measure(values, columns, groups, names, settings=settings, **logs)[0]


def counted(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int
) -> tuple[float, float]:
    """Returns agreement and chance, image by image."""
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    found, chance = [], []
    for row in np.flatnonzero(labels == 1):
        others = np.flatnonzero((groups != groups[row]) & ~np.isnan(labels))
        nearest = others[np.argsort(-unit[others] @ unit[row], kind="stable")[:k]]
        found.append(labels[nearest].mean())
        chance.append(labels[others].mean())
    return float(np.mean(found)), float(np.mean(chance))


@pytest.mark.parametrize("blanks", [False, True])
def test_it_is_what_counting_gives(blanks: bool) -> None:
    values, labels, groups = sets(40, 3, 1.5)
    if blanks:
        labels[::4] = np.nan
    found = measured(values, labels, groups, Settings(k=7, resamples=50))
    expected, chance = counted(values, labels, groups, 7)
    assert found.agreement.value == pytest.approx(expected)
    assert found.chance.value == pytest.approx(chance)
    assert found.lift.value == pytest.approx(expected / chance)
    assert found.n == np.isfinite(labels).sum()
    assert found.n_positive == found.n_compared == (labels == 1).sum()


def test_a_finding_that_the_embeddings_hold_is_above_chance() -> None:
    values, labels, groups = sets(150, 2, 3.0)
    found = measured(values, labels, groups, Settings())
    assert found.agreement.low > found.chance.high
    assert found.lift.low > 1


def test_the_own_patients_images_do_not_count() -> None:
    """They are nearly equal: with them, any label would agree."""
    values, labels, groups = sets(150, 4, 0.0)
    found = measured(values, labels, groups, Settings(k=3))
    assert found.lift.low < 1 < found.lift.high
    cheating = measured(values, labels, np.arange(len(groups)), Settings(k=3))
    assert cheating.lift.low > 2


def test_without_a_relation_the_interval_holds_1_as_often_as_it_says() -> None:
    held = 0
    for seed in range(150):
        values, labels, groups = sets(60, 2, 0.0, seed)
        found = measured(values, labels, groups, Settings(k=5, resamples=150, seed=seed))
        held += found.lift.low <= 1 <= found.lift.high
    assert 0.89 <= held / 150 <= 1


def test_a_large_set_is_sampled_and_says_so() -> None:
    values, labels, groups = sets(100, 3, 2.0)
    settings = Settings(resamples=20, most_queries=30)
    lines: list[str] = []
    found = measured(values, labels, groups, settings, lines.append)
    assert found.n_compared == 30 < found.n_positive
    assert lines == ["a: neighbours of 30 images compared"]
    assert any("30 images, by chance" in line for line in agreement.lines([found]))
    whole = counted(values, labels, groups, 10)[0]
    assert abs(found.agreement.value - whole) < 0.2


def test_few_patients_are_refused_in_words() -> None:
    values, labels, groups = sets(30, 2, 0.0)
    labels[:] = 0
    labels[:4] = 1
    found = measured(values, labels, groups, Settings())
    assert found.problem == "too few: 2 patients have it, 5 are needed"
    assert found.as_json()["agreement"] == {"value": None, "low": None, "high": None}


def test_no_neighbour_with_the_finding_has_an_upper_end() -> None:
    values, labels, groups = sets(60, 1, 0.0)
    labels[:] = 0
    labels[:5] = 1
    values[:5] = np.eye(16)[:5] * 50
    found = measured(values, labels, groups, Settings(k=1))
    assert found.agreement.value == found.lift.value == 0
    assert found.lift.high > 1
