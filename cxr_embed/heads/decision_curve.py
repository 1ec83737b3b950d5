"""Decision curves: what acting on a head's probabilities gains, for each threshold.

Net benefit = true positives / n - false positives / n x threshold / (1 - threshold): the threshold
says how many false alarms one found case is worth (Vickers and Elkin, "Decision curve analysis",
Medical Decision Making 2006). A head is of use where it is above both treating all and treating
none, which is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cxr_embed.heads import plots, saved

PLOT_NAME, TABLE_NAME = "decision_curve.png", "decision_curve.csv"
COLUMNS = ("head", "threshold", "net_benefit", "low", "high", "net_benefit_of_treating_all")

THRESHOLDS = np.arange(1, 100) / 100


class Curve(NamedTuple):
    """Net benefits of one head, each (len(THRESHOLDS),); `low` and `high` are of 95 %, or None."""

    head: np.ndarray
    treat_all: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def net_benefit(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Returns the net benefit at THRESHOLDS of acting on scores of at least the threshold.

    Args:
        labels: (n,), 0 or 1.
        scores: (n,), probabilities.
        weights: (n,), of the images.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    # The number of thresholds that a score reaches; sums from the top give those above each.
    reached = np.searchsorted(THRESHOLDS, scores, side="right")
    size = len(THRESHOLDS) + 1

    def above(of: np.ndarray) -> np.ndarray:
        counted = np.bincount(reached, weights * of, size)
        return np.asarray(np.cumsum(counted[::-1])[::-1][1:])

    odds = THRESHOLDS / (1 - THRESHOLDS)
    return np.asarray((above(labels) - above(1 - labels) * odds) / weights.sum())


def curve(labels: np.ndarray, scores: np.ndarray, resamples: Sequence[np.ndarray]) -> Curve:
    """Returns a head's decision curve with 95 % intervals.

    Args:
        labels: (n,), 0 or 1.
        scores: (n,), probabilities.
        resamples: weights (n,) of the images in each bootstrap sample; none gives no intervals.
    """
    low = high = None
    if len(resamples):
        drawn = [net_benefit(labels, scores, weights) for weights in resamples]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Curve(net_benefit(labels, scores), net_benefit(labels, np.ones(len(labels))), low, high)


def table(curves: Mapping[str, Curve]) -> bytes:
    """Returns decision_curve.csv."""
    rows = []
    for head, found in curves.items():
        for at, threshold in enumerate(THRESHOLDS.tolist()):
            ends = ["" if end is None else repr(float(end[at])) for end in (found.low, found.high)]
            benefits = [repr(float(one[at])) for one in (found.head, found.treat_all)]
            rows.append([head, f"{threshold:g}", benefits[0], *ends, benefits[1]])
    return saved.csv_bytes(COLUMNS, rows)


def plot(curves: Mapping[str, Curve], title: str) -> bytes:
    """Draws net benefit against the threshold; treating all of a head's images as a thin line."""
    figure, axes = plots.new_panels(1, (6.4, 4.8))
    axes.axhline(0, color="black", linewidth=0.8, label="treat none")
    top = 0.01
    for number, (name, found) in enumerate(curves.items()):
        colour, style = plots.look(number)
        axes.plot(THRESHOLDS, found.head, style, color=colour, label=name)
        axes.plot(THRESHOLDS, found.treat_all, color=colour, linewidth=0.8, linestyle=":")
        if found.low is not None and found.high is not None:
            axes.fill_between(
                THRESHOLDS, found.low, found.high, color=colour, alpha=0.15, linewidth=0
            )
            top = max(top, float(found.high.max()))
        top = max(top, float(found.head.max()), float(found.treat_all[0]))
    axes.plot([], [], color="#888888", linewidth=0.8, linestyle=":", label="treat all")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.25 * top, 1.08 * top)
    axes.set_xlabel("threshold: probability from which on one acts")
    axes.set_ylabel("net benefit, true positives an image")
    axes.set_title(f"Decision curve, {title}")
    plots.legend(axes, len(curves) + 2, "upper right")
    return plots.png(figure)


def as_json(found: Curve) -> dict[str, Any]:
    """Returns the range of thresholds in which acting on the head is best, ready for JSON."""
    better = found.head > np.maximum(found.treat_all, 0) + 1e-12
    chosen = THRESHOLDS[better]
    return {
        "best_from": float(chosen[0]) if len(chosen) else None,
        "best_to": float(chosen[-1]) if len(chosen) else None,
    }
