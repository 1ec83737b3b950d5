"""Plots of training and evaluation, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import metrics
from cxr_embed.heads.bands import GRID

# Labels and probabilities of one head.
Scored = tuple[np.ndarray, np.ndarray]
Bands = Mapping[str, tuple[np.ndarray, np.ndarray]]

# Okabe and Ito's colours, which are distinguishable with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#888888"
_STYLES = ("-", "--", ":")
_SIZE = (5.6, 5.2)
_DPI = 130
_LEGEND_INSIDE = 8


@dataclass(frozen=True)
class TrainingCurve:
    """Loss and AUROC over the course of a training.

    Attributes:
        x_name: the quantity on the x-axis.
        x: its values.
        loss: by split.
        tune_auroc: on the tune split, by name.
        best: the x that was kept, for each name.
        logarithmic: whether the x-axis is logarithmic.
    """

    x_name: str
    x: Sequence[float]
    loss: Mapping[str, Sequence[float]]
    tune_auroc: Mapping[str, Sequence[float]]
    best: Sequence[float]
    logarithmic: bool = False


def training_curve(curve: TrainingCurve) -> bytes:
    """Draws loss and tune AUROC, one above the other."""
    figure, (upper, lower) = new_panels(2, (6.4, 5.6))
    marker = "o" if len(curve.x) < 30 else None
    for (name, values), style in zip(curve.loss.items(), _STYLES, strict=False):
        upper.plot(curve.x, values, style, color=_GREY, marker=marker, markersize=3.5, label=name)
    upper.set_ylabel("loss")
    legend(upper, len(curve.loss), "best")
    for number, (name, values) in enumerate(curve.tune_auroc.items()):
        colour, style = look(number)
        lower.plot(curve.x, values, style, color=colour, marker=marker, markersize=3.5, label=name)
        best = curve.best[min(number, len(curve.best) - 1)]
        at = list(curve.x).index(best)
        lower.plot(best, values[at], "o", color=colour, markersize=9, markerfacecolor="none")
    lower.plot([], [], "o", color=_GREY, markersize=9, markerfacecolor="none", label="kept")
    lower.set_ylabel("tune AUROC")
    for axes in (upper, lower):
        axes.set_xlabel(curve.x_name if axes is lower else "")
        if curve.logarithmic:
            axes.set_xscale("log")
        elif len(curve.x) < 2 or max(curve.x) <= 12:
            axes.set_xticks(list(curve.x))
    legend(lower, len(curve.tune_auroc) + 1, "best")
    return png(figure)


def roc(heads: Mapping[str, Scored], title: str, bands: Bands | None = None) -> bytes:
    """Draws ROC curves; heads that have one class only are left out."""
    figure, axes = new_panels(1, _SIZE)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
    drawn = 0
    for name, ranking in _rankings(heads):
        _, true, false = ranking.curve()
        colour, style = look(drawn)
        x, y = np.append(0, false / false[-1]), np.append(0, true / true[-1])
        axes.plot(x, y, style, color=colour, label=f"{name}  {ranking.auroc():.3f}")
        _band(axes, bands, name, colour)
        drawn += 1
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.set_title(f"ROC, {title}")
    _square(axes)
    legend(axes, drawn, "lower right", "AUROC")
    return png(figure)


def precision_recall(heads: Mapping[str, Scored], title: str, bands: Bands | None = None) -> bytes:
    """Draws precision-recall curves, and each head's share of positives as a thin line."""
    figure, axes = new_panels(1, _SIZE)
    drawn = 0
    for name, ranking in _rankings(heads):
        _, true, false = ranking.curve()
        colour, style = look(drawn)
        x = np.append(0, true / true[-1])
        precision = true / (true + false)
        axes.step(
            x, np.append(precision[0], precision), style, color=colour, where="pre",
            label=f"{name}  {ranking.auprc():.3f}",
        )  # fmt: skip
        axes.axhline(true[-1] / (true[-1] + false[-1]), color=colour, linewidth=0.8, linestyle=":")
        _band(axes, bands, name, colour)
        drawn += 1
    axes.plot([], [], color=_GREY, linewidth=0.8, linestyle=":", label="share of positives")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (positive predictive value)")
    axes.set_title(f"Precision and recall, {title}")
    _square(axes)
    legend(axes, drawn + 1, "best", "average precision")
    return png(figure)


def calibration(
    heads: Mapping[str, Scored],
    title: str,
    bands: Bands | None = None,
    before: Mapping[str, Scored] | None = None,
) -> bytes:
    """Draws the share of positives against the probability, in bins of equally many images.

    Args:
        heads: by name.
        title: of the plot.
        bands: ends of intervals.
        before: what the heads gave before their calibration, as thin lines.
    """
    figure, axes = new_panels(1, _SIZE)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":", label="perfect")
    drawn = 0
    for name, (labels, scores) in heads.items():
        if not len(labels):
            continue
        bins = metrics.calibration_bins(labels, scores)
        colour, style = look(drawn)
        x, y = [one.predicted for one in bins], [one.observed for one in bins]
        score = metrics.brier(labels, scores)
        axes.plot(x, y, style, color=colour, marker="o", markersize=4, label=f"{name}  {score:.3f}")
        if before and name in before:
            bins = metrics.calibration_bins(*before[name])
            x_before, y_before = [one.predicted for one in bins], [one.observed for one in bins]
            axes.plot(x_before, y_before, ":", color=colour, marker="x", markersize=4, linewidth=1)
        if bands and name in bands:
            low, high = bands[name]
            axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=1.2)
        drawn += 1
    if before:
        axes.plot([], [], ":", color=_GREY, marker="x", markersize=4, linewidth=1,
                  label="before calibration")  # fmt: skip
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share of positives")
    axes.set_title(f"Calibration, {title}")
    _square(axes)
    legend(axes, drawn + 1 + bool(before), "best", "Brier score")
    return png(figure)


@dataclass(frozen=True)
class FewShotLine:
    """One classifier's AUROC against the number of labels.

    Attributes:
        name: of the classifier.
        n_per_class: labelled images of each class.
        auroc: mean over seeds.
        low: lower ends of the 95 % intervals.
        high: their upper ends.
    """

    name: str
    n_per_class: Sequence[int]
    auroc: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def few_shot(heads: Mapping[str, Sequence[FewShotLine]]) -> bytes:
    """Draws AUROC against labelled images per class, one panel for each head."""
    columns = min(3, len(heads))
    rows = -(-len(heads) // columns)
    figure, grid = _new_grid(rows, columns, (0.9 + 4.6 * columns, 0.5 + 3.9 * rows))
    panels = grid.ravel()
    for axes, (head, lines) in zip(panels, heads.items(), strict=False):
        for number, line in enumerate(lines):
            colour, _ = look(number)
            axes.plot(
                line.n_per_class, line.auroc, color=colour, marker="os^v"[number % 4],
                markersize=4, label=line.name,
            )  # fmt: skip
            axes.fill_between(line.n_per_class, line.low, line.high, color=colour, alpha=0.18, lw=0)
        sizes = sorted({n for line in lines for n in line.n_per_class})
        ticks = [n for n in sizes if n == sizes[-1] or n * 1.6 <= sizes[-1]]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.tick_params(axis="x", labelsize=8, rotation=45 if len(ticks) > 9 else 0)
        axes.axhline(0.5, color=_GREY, linewidth=0.8, linestyle=":")
        axes.set_title(head)
        axes.set_xlabel("labelled images per class")
        axes.set_ylabel("test AUROC")
        axes.legend(frameon=False, loc="lower right")
    for axes in panels[len(heads) :]:
        axes.set_axis_off()
    return png(figure)


def _band(axes: Any, bands: Bands | None, name: str, colour: str) -> None:
    if bands and name in bands:
        axes.fill_between(GRID, *bands[name], color=colour, alpha=0.15, linewidth=0)


def _rankings(heads: Mapping[str, Scored]) -> list[tuple[str, metrics.Ranking]]:
    return [
        (name, metrics.Ranking(labels, scores))
        for name, (labels, scores) in heads.items()
        if 0 < labels.sum() < len(labels)
    ]


def look(number: int) -> tuple[str, str]:
    """Returns colour and line style; together they distinguish 21 lines."""
    return COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % len(_STYLES)]


def new_panels(rows: int, size: tuple[float, float]) -> Any:
    """Returns a figure and its axes, one or several below each other; size in inches."""
    figure, grid = _new_grid(rows, 1, size)
    return figure, grid[0, 0] if rows == 1 else grid[:, 0]


def _new_grid(rows: int, columns: int, size: tuple[float, float]) -> Any:
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("matplotlib is not installed: pip install 'cxr-embed[train]'") from error
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    return figure, grid


def _square(axes: Any) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")


def legend(axes: Any, lines: int, place: str, title: str | None = None) -> None:
    """Adds a legend: inside where it fits, beside the picture where it would hide the curves."""
    handles, _ = axes.get_legend_handles_labels()
    if not handles:
        axes.text(0.5, 0.5, "no split with both classes", ha="center", va="center", color=_GREY)
        return
    if lines > _LEGEND_INSIDE:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), title=title)
        axes.figure.set_figwidth(axes.figure.get_figwidth() + 2.6)
        return
    axes.legend(loc=place, title=title, framealpha=0.85, edgecolor="none")


def png(figure: Any) -> bytes:
    """Returns a figure as a file."""
    buffer = io.BytesIO()
    # No software name or date: the same figures give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
