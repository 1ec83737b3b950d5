"""A cross-validated linear probe: what it equals, what it must not see, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cxr_embed.heads import probe


def sets(rows: int, size: int, strength: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    groups = np.arange(rows) // 3
    labels = (rng.random(rows) < 0.3).astype(np.float64)
    values = rng.standard_normal((rows, size), dtype=np.float32)
    values[:, :4] += strength * labels[:, None]
    return values, labels, groups


@pytest.mark.parametrize("size", [20, 900])
def test_it_equals_scikit_learns_own_cross_validation(size: int) -> None:
    """With more floats than images, too, where fewer numbers of the same products are used."""
    values, labels, groups = sets(300, size, 0.8)
    found = probe.probe(values, labels, groups, "a", resamples=0)
    scaled = (values - values.mean(0)) / values.std(0) / np.sqrt(size)
    aurocs = []
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(values, labels, groups):
        model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
        model.fit(scaled[train].astype(np.float64), labels[train])
        aurocs.append(roc_auc_score(labels[test], model.decision_function(scaled[test])))
    assert found.auroc.value == pytest.approx(np.mean(aurocs), abs=2e-3)
    assert (found.n, found.n_used, found.problem) == (300, 300, "")


def test_a_patient_is_in_one_fold() -> None:
    """Patients without any relation to their label: a fold that shared them would know it."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 5)
    labels = (rng.random(80) < 0.5).astype(np.float64)[groups]
    values = rng.standard_normal((80, 64))[groups] + 0.05 * rng.standard_normal((400, 64))
    values = values.astype(np.float32)
    found = probe.probe(values, labels, groups, "a")
    assert found.auroc.low < 0.5 < found.auroc.high
    assert probe.probe(values, labels, np.arange(400), "a").auroc.value > 0.9


def test_blanks_are_left_out_and_large_sets_sampled() -> None:
    values, labels, groups = sets(2000, 8, 1.0)
    labels[::2] = np.nan
    found = probe.probe(values, labels, groups, "a", resamples=50, most_images=300)
    assert (found.n, found.n_used) == (1000, 300)
    assert found.auroc.low < found.auroc.value < found.auroc.high
    whole = probe.probe(values, labels, groups, "a", resamples=0)
    assert found.auroc.value == pytest.approx(whole.auroc.value, abs=0.05)


def test_too_few_positives_are_said() -> None:
    values, labels, groups = sets(300, 8, 1.0)
    labels[:] = 0
    labels[:12] = 1
    found = probe.probe(values, labels, groups, "a")
    assert found.problem == "too few: 4 patients are positive, 10 are needed"
    assert np.isnan(found.auroc.value)


def test_embeddings_that_are_all_the_same_are_worth_nothing() -> None:
    values, labels, groups = sets(300, 400, 0.0)
    values[:] = 1
    assert probe.probe(values, labels, groups, "a").auroc.value == pytest.approx(0.5)
