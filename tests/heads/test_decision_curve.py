"""Decision curves: net benefit by its definition, and the range in which a head is of use."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_embed.heads import decision_curve
from cxr_embed.heads.decision_curve import THRESHOLDS

RNG = np.random.default_rng(0)
TRUE = RNG.beta(1, 3, 2000)
LABELS = (RNG.random(2000) < TRUE).astype(float)


def test_net_benefit_is_what_its_definition_says() -> None:
    weights = RNG.integers(0, 4, 2000).astype(float)
    scores = np.round(TRUE, 2)  # many are equal to a threshold
    found = decision_curve.net_benefit(LABELS, scores, weights)
    for at, threshold in enumerate(THRESHOLDS.tolist()):
        called = scores >= threshold
        true = weights[called & (LABELS == 1)].sum()
        false = weights[called & (LABELS == 0)].sum()
        wanted = (true - false * threshold / (1 - threshold)) / weights.sum()
        assert found[at] == pytest.approx(wanted, abs=1e-12), threshold


def test_a_calibrated_head_is_never_worse_than_all_or_none_and_chance_is() -> None:
    found = decision_curve.curve(LABELS, TRUE, [])
    assert (found.head >= np.maximum(found.treat_all, 0) - 0.01).all()
    best = decision_curve.as_json(found)
    assert best["best_from"] < 0.15
    assert best["best_to"] > 0.6
    useless = decision_curve.curve(LABELS, np.full(2000, LABELS.mean()), [])
    assert decision_curve.as_json(useless) == {"best_from": None, "best_to": None}


def test_treating_all_gains_the_prevalence_where_false_alarms_cost_nothing() -> None:
    found = decision_curve.curve(LABELS, TRUE, [])
    share = LABELS.mean()
    assert found.treat_all[0] == pytest.approx(share - (1 - share) * 0.01 / 0.99)


def test_the_table_and_the_plot_have_every_head() -> None:
    resamples = [RNG.integers(0, 3, 2000).astype(float) for _ in range(20)]
    curves = {"ONE": decision_curve.curve(LABELS, TRUE, resamples)}
    curves["OTHER"] = decision_curve.curve(LABELS, TRUE**2, [])
    lines = decision_curve.table(curves).decode().splitlines()
    assert lines[0] == ",".join(decision_curve.COLUMNS)
    assert len(lines) == 1 + 2 * len(THRESHOLDS)
    _, threshold, benefit, low, high, _ = lines[20].split(",")
    assert threshold == "0.2"
    assert float(low) < float(benefit) < float(high)
    assert lines[-1].split(",")[3:5] == ["", ""]
    assert decision_curve.plot(curves, "test split").startswith(b"\x89PNG")
