"""What `evaluate --neighbours` writes: a table and a plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_embed.heads import plots, saved
from cxr_embed.heads.agreement import FIGURES, Agreement

TABLE_NAME = "neighbours.csv"
PLOT_NAME = "neighbours.png"
TABLE_COLUMNS = (
    "head", "metric", "estimate", "low", "high", "k", "n", "n_positive", "patients", "n_compared",
)  # fmt: skip


def table(found: Sequence[Agreement]) -> bytes:
    """Returns neighbours.csv: one row for each figure of each label."""
    rows = []
    for one in found:
        counts = (one.k, one.n, one.n_positive, one.patients, one.n_compared)
        for name in FIGURES:
            cells = ["" if v is None else repr(v) for v in getattr(one, name).as_json().values()]
            rows.append([one.head, name, *cells, *counts])
    return saved.csv_bytes(TABLE_COLUMNS, rows)


def plot(found: Sequence[Agreement]) -> bytes:
    """Draws each label's agreement with its interval, and what chance gives."""
    shown = [one for one in found if not one.problem][::-1]
    figure, axes = plots.new_panels(1, (6.4, 1.5 + 0.34 * max(len(shown), 1)))
    colour, at = plots.COLOURS[0], np.arange(len(shown))
    value, low, high = (
        np.array([getattr(one.agreement, end) for one in shown]) for end in ("value", "low", "high")
    )
    chance = np.array([one.chance.value for one in shown])
    axes.hlines(at, low, high, color=colour, linewidth=1.8)
    axes.plot(value, at, "o", color=colour, label="nearest images of other patients")
    axes.plot(chance, at, "|", color=plots.COLOURS[1], markersize=12, mew=2, label="chance")
    axes.set_yticks(at, [one.head for one in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of images with the finding")
    if shown:
        axes.set_title(f"The {shown[0].k} nearest images of those with the finding")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2)
    else:
        axes.text(0.5, 0, "too few patients with a finding", ha="center", va="center")
    return plots.png(figure)
