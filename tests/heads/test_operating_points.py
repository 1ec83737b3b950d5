"""Thresholds and what they achieve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr_embed.errors import UsageError
from cxr_embed.heads.operating_points import Rule, choose_threshold, parse_rule, rates

LABELS = np.array([0, 0, 0, 0, 1, 0, 1, 1, 0, 1.0])
SCORES = np.array([0.1, 0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("sensitivity=1", 0.3),
        ("sensitivity=0.75", 0.5),
        ("sensitivity=0.7", 0.5),
        ("specificity=0.8", 0.5),
        ("specificity=1", 0.9),
        ("youden", 0.5),
        ("threshold=0.42", 0.42),
    ],
)
def test_rules(rule: str, threshold: float) -> None:
    assert choose_threshold(parse_rule(rule), LABELS, SCORES) == threshold


@pytest.mark.parametrize("seed", range(5))
def test_a_rule_is_kept_with_as_much_of_the_other_as_possible(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(200) < 0.4).astype(float)
    scores = (rng.standard_normal(200) + labels).round(1)
    for kind, other in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
        at = choose_threshold(Rule(kind, 0.8), labels, scores)
        found = rates(labels, scores, at)
        assert found[kind] >= 0.8
        others = [rates(labels, scores, t) for t in set(scores.tolist())]
        assert found[other] == max(r[other] for r in others if r[kind] >= 0.8)


def test_nothing_is_specific_enough() -> None:
    labels, scores = np.array([1.0, 0]), np.array([0.2, 0.9])
    at = choose_threshold(Rule("specificity", 0.5), labels, scores)
    assert at == np.inf
    assert rates(labels, scores, at)["specificity"] == 1


def test_rates_equal_scikit_learns() -> None:
    weights = np.arange(10.0)
    called = SCORES >= 0.35
    found = rates(LABELS, SCORES, 0.35, weights)
    kept = {"sample_weight": weights}
    assert found["sensitivity"] == pytest.approx(sk.recall_score(LABELS, called, **kept))
    assert found["specificity"] == pytest.approx(sk.recall_score(1 - LABELS, ~called, **kept))
    assert found["ppv"] == pytest.approx(sk.precision_score(LABELS, called, **kept))
    assert found["npv"] == pytest.approx(sk.precision_score(1 - LABELS, ~called, **kept))


@pytest.mark.parametrize("text", ["", "youden=1", "sensitivity", "sensitivity=2", "f1", "ppv=0.9"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError, match="one of youden, sensitivity"):
        parse_rule(text)
