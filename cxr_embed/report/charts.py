"""Computes the geometry of charts; templates draw it as SVG, which can also be printed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

MAP_EDGE = 520
_MAP_MARGIN = 16


@dataclass(frozen=True)
class Histogram:
    """Bars over a continuous axis, in the coordinates of the drawing.

    Attributes:
        label: description for screen readers.
        across: title of the horizontal axis.
        up: title of the vertical axis.
        bars: x, y, width and height of each bar.
        across_ticks: x and label of each tick.
        up_ticks: y and label of each tick.
    """

    width: ClassVar[int] = 640
    height: ClassVar[int] = 200
    left: ClassVar[int] = 62
    right: ClassVar[int] = width - 12
    top: ClassVar[int] = 10
    bottom: ClassVar[int] = height - 40

    label: str
    across: str
    up: str
    bars: list[tuple[float, float, float, float]]
    across_ticks: list[tuple[float, str]]
    up_ticks: list[tuple[float, str]]


def histogram(
    edges: np.ndarray, heights: np.ndarray, *, label: str, across: str, up: str
) -> Histogram:
    """Places the bars and ticks of a histogram.

    Args:
        edges: shape (n + 1,), ascending.
        heights: shape (n,), heights of the bars, not negative.
        label: description for screen readers.
        across: title of the horizontal axis.
        up: title of the vertical axis.
    """
    low, high = float(edges[0]), float(edges[-1])
    up_ticks = nice_ticks(0.0, float(heights.max()) or 1.0)
    across_ticks = [tick for tick in nice_ticks(low, high) if low <= tick <= high]

    def x(value: float) -> float:
        return np.interp(value, [low, high], [Histogram.left, Histogram.right]).item()

    def y(value: float) -> float:
        return np.interp(value, [0, up_ticks[-1]], [Histogram.bottom, Histogram.top]).item()

    def labelled(ticks: list[float]) -> Iterator[tuple[float, str]]:
        return zip(ticks, tick_labels(ticks), strict=True)

    bars = []
    for left, right, value in zip(edges, edges[1:], heights, strict=False):
        gap = min(1.0, (x(right) - x(left)) / 8)
        bars.append((x(left) + gap / 2, y(value), x(right) - x(left) - gap,
                     Histogram.bottom - y(value)))  # fmt: skip
    return Histogram(
        label, across, up, bars,
        [(x(tick), words) for tick, words in labelled(across_ticks)],
        [(y(tick), words) for tick, words in labelled(up_ticks)],
    )  # fmt: skip


def place(points: np.ndarray) -> np.ndarray:
    """Scales points into the map's square and keeps proportions; returns float (n, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (MAP_EDGE - 2 * _MAP_MARGIN) / (float((high - low).max()) or 1.0)
    moved = (points - (low + high) / 2) * scale
    return np.column_stack([MAP_EDGE / 2 + moved[:, 0], MAP_EDGE / 2 - moved[:, 1]])


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round numbers whose steps are 1, 2 or 5 times a power of ten.

    The first one is at most `low`, and the last one is at least `high`.
    """
    span = (high - low) or abs(high) or 1.0
    rough = span / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Formats ticks with as many digits as it takes to make every label different."""
    labels: list[str] = []
    for digits in range(4, 17):
        labels = [_plain(tick, digits) for tick in ticks]
        if len(set(labels)) == len(labels):
            break
    return labels


def _plain(value: float, digits: int) -> str:
    """Formats a number: 12,000 or 0.35."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"
