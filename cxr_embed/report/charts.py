"""Draws charts as inline SVG without scripts, so that they can also be printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cxr_embed.report.page import Html, tag

_WIDTH, _HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 10, 40
_MAP_EDGE = 520
_MAP_MARGIN = 16

_POINT_RADIUS = 4.0
_SMALL_RADIUS = 2.5
_MANY_POINTS = 1000


def histogram(
    edges: np.ndarray,
    heights: np.ndarray,
    *,
    label: str,
    across: str,
    up: str,
) -> Html:
    """Returns bars over a continuous axis.

    Args:
        edges: shape (n + 1,), ascending.
        heights: shape (n,), heights of the bars, not negative.
        label: description for screen readers.
        across: title of the horizontal axis.
        up: title of the vertical axis.
    """
    low, high = float(edges[0]), float(edges[-1])
    top = nice_ticks(0.0, float(heights.max()) or 1.0)[-1]
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + width * (value - low) / ((high - low) or 1.0)

    def y(value: float) -> float:
        return _TOP + height * (1 - value / top)

    parts = []
    ticks = nice_ticks(0.0, top)
    for tick, words in zip(ticks, tick_labels(ticks), strict=True):
        at = _n(y(tick))
        parts += [
            tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"),
            tag("text", words, x=_LEFT - 8, y=_n(y(tick) + 4), class_="end"),
        ]
    for left, right, value in zip(edges, edges[1:], heights, strict=False):
        begin, end = x(float(left)), x(float(right))
        gap = min(1.0, (end - begin) / 8)
        parts.append(
            tag("rect", x=_n(begin + gap / 2), y=_n(y(float(value))), width=_n(end - begin - gap),
                height=_n(_TOP + height - y(float(value))), class_="bar")
        )  # fmt: skip
    ticks = [tick for tick in nice_ticks(low, high) if low <= tick <= high]
    for tick, words in zip(ticks, tick_labels(ticks), strict=True):
        below = _HEIGHT - _BOTTOM + 17
        parts.append(tag("text", words, x=_n(x(tick)), y=below, class_="middle"))
    parts.append(
        tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_HEIGHT - _BOTTOM, y2=_HEIGHT - _BOTTOM,
            class_="axis")
    )  # fmt: skip
    parts.append(tag("text", across, x=_LEFT + width / 2, y=_HEIGHT - 6, class_="middle title"))
    parts.append(
        tag("text", up, x=12, y=_TOP + height / 2, class_="middle title",
            transform=f"rotate(-90 12 {_n(_TOP + height / 2)})")
    )  # fmt: skip
    return tag(
        "svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label,
        class_="chart",
    )  # fmt: skip


def share_bar(share: float) -> Html:
    """Returns a thin bar for a table cell; `share` is 0..1. The number is in another cell."""
    width = 0.0 if share <= 0 else max(0.5, 100 * min(share, 1.0))
    return tag(
        "svg", tag("rect", width=_n(width), height=6, class_="bar"),
        viewBox="0 0 100 6", preserveAspectRatio="none", class_="share", aria_hidden="true",
    )  # fmt: skip


def scatter(
    points: np.ndarray,
    colours: Sequence[int],
    *,
    identifier: str,
    label: str,
    is_ordered: bool = False,
) -> Html:
    """Returns a map of points, which the page's script makes interactive.

    Args:
        points: float of shape (n, 2), without units. Both axes have the same scale.
        colours: for each point the number of its colour, or -1 for none.
        identifier: id of the element.
        label: description for screen readers.
        is_ordered: use the sequential colours from dark to bright instead of the distinct ones.
    """
    prefix = "s" if is_ordered else "c"
    radius = _POINT_RADIUS if len(points) <= _MANY_POINTS else _SMALL_RADIUS
    names = [f"{prefix}{colour}" if colour >= 0 else "none" for colour in colours]
    circles = [
        tag("circle", cx=_n(cx), cy=_n(cy), r=radius, class_=name)
        for (cx, cy), name in zip(place(points), names, strict=True)
    ]
    return tag(
        "svg", tag("rect", width=_MAP_EDGE, height=_MAP_EDGE, class_="ground"), tag("g", *circles),
        viewBox=f"0 0 {_MAP_EDGE} {_MAP_EDGE}", class_="map", id=identifier, role="application",
        aria_label=label, aria_describedby="map-help", tabindex=0,
    )  # fmt: skip


def place(points: np.ndarray) -> np.ndarray:
    """Scales points into the map's square and keeps proportions; returns float (n, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (_MAP_EDGE - 2 * _MAP_MARGIN) / (float((high - low).max()) or 1.0)
    moved = (points - (low + high) / 2) * scale
    return np.column_stack([_MAP_EDGE / 2 + moved[:, 0], _MAP_EDGE / 2 - moved[:, 1]])


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


def _n(value: float) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".")
