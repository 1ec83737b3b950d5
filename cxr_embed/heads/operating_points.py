"""Thresholds that turn probabilities into classes, and the rates that they achieve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads.metrics import Ranking

# Shares for which a saved head carries thresholds, as they are written in head.json.
SAVED_SHARES = tuple(f"{percent / 100:g}" for percent in (*range(1, 100), 99.5, 99.9, 100))
RATES = ("sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True)
class Rule:
    """How to choose a threshold.

    Attributes:
        kind: `youden` (highest sensitivity + specificity), `sensitivity`, `specificity` (at least
            `value` of it, with the highest possible value of the other), or `threshold` (`value`).
        value: a share, or the threshold itself.
    """

    kind: str
    value: float = float("nan")

    def __str__(self) -> str:
        return self.kind if np.isnan(self.value) else f"{self.kind}={self.value:g}"


def parse_rule(text: str) -> Rule:
    """Reads `youden`, `sensitivity=0.9`, `specificity=0.95` or `threshold=0.5`.

    Raises:
        UsageError: anything else.
    """
    kind, _, value = text.strip().partition("=")
    if kind == "youden" and not value:
        return Rule(kind)
    if kind in ("sensitivity", "specificity", "threshold"):
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if 0 <= number <= 1:
            return Rule(kind, number)
    raise UsageError(
        f"operating point {text}: one of youden, sensitivity=0.9, specificity=0.9 and "
        "threshold=0.5, with a number from 0 to 1"
    )


def choose_threshold(rule: Rule, labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the threshold: an image counts as positive if its score is at least that.

    Args:
        rule: how to choose.
        labels: (n,), 0 or 1, of both classes.
        scores: (n,).

    Returns:
        One of the scores, the rule's own, or infinity where only calling nothing positive is
        specific enough.
    """
    if rule.kind == "threshold":
        return rule.value
    thresholds, true, false = Ranking(labels, scores).curve()
    sensitivity = true / true[-1]
    specificity = 1 - false / false[-1]
    if rule.kind == "youden":
        return float(thresholds[np.argmax(sensitivity + specificity)])
    if rule.kind == "sensitivity":
        return float(thresholds[np.argmax(sensitivity >= rule.value - 1e-12)])
    enough = np.flatnonzero(specificity >= rule.value - 1e-12)
    return float(thresholds[enough[-1]]) if len(enough) else float("inf")


def tabulate(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Returns the thresholds that a saved head carries, ready for JSON.

    Args:
        labels: (n,), 0 or 1, of both classes, of the tune split.
        scores: (n,), probabilities.

    Returns:
        `youden`, and by share, as in SAVED_SHARES, those of `sensitivity` and `specificity`; null
        where only calling nothing positive is specific enough.
    """
    found: dict[str, Any] = {"youden": choose_threshold(Rule("youden"), labels, scores)}
    for kind in ("sensitivity", "specificity"):
        chosen = {
            share: choose_threshold(Rule(kind, float(share)), labels, scores)
            for share in SAVED_SHARES
        }
        found[kind] = {share: t if np.isfinite(t) else None for share, t in chosen.items()}
    return found


def look_up(table: dict[str, Any], rule: Rule) -> float:
    """Returns a rule's threshold from a saved head's table.

    A share between two of the table gets the threshold of the higher one: at least what was asked
    for is reached on the tune split.
    """
    if rule.kind == "threshold":
        return rule.value
    if rule.kind == "youden":
        return float(table["youden"])
    by_share = table[rule.kind]
    share = min((one for one in by_share if float(one) >= rule.value - 1e-12), key=float)
    return float("inf") if by_share[share] is None else float(by_share[share])


def rates(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray | None = None
) -> dict[str, float]:
    """Returns sensitivity, specificity, positive and negative predictive value; NaN where 0 / 0."""
    weights = np.ones(len(labels)) if weights is None else weights
    called = scores >= threshold
    positive = labels == 1
    true_positive = float(weights[called & positive].sum())
    false_positive = float(weights[called & ~positive].sum())
    false_negative = float(weights[~called & positive].sum())
    true_negative = float(weights[~called & ~positive].sum())
    return {
        "sensitivity": _share(true_positive, false_negative),
        "specificity": _share(true_negative, false_positive),
        "ppv": _share(true_positive, false_positive),
        "npv": _share(true_negative, false_negative),
    }


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest else float("nan")
