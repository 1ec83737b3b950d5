"""Charts: ticks, their labels and the markup."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_embed.report import charts


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.0, 5000.0, 10_000.0], ["0", "5,000", "10,000"]),
        ([0.1, 0.15, 0.2], ["0.1", "0.15", "0.2"]),
        ([0.99991, 0.99992], ["0.99991", "0.99992"]),
        ([], []),
    ],
)
def test_tick_labels_are_short_and_all_different(ticks: list[float], labels: list[str]) -> None:
    assert charts.tick_labels(ticks) == labels


def test_a_narrow_range_repeats_no_label() -> None:
    edges = np.linspace(123.4561, 123.4569, 6)
    chart = charts.histogram(edges, np.arange(5), label="a chart", across="length", up="images")
    labels = [words for _, words in chart.across_ticks]
    assert len(labels) > 2
    assert len(set(labels)) == len(labels)


def test_bars_stand_on_the_axis_and_end_at_their_heights() -> None:
    chart = charts.histogram(
        np.array([0.0, 1.0, 2.0]), np.array([5, 10]), label="", across="", up=""
    )
    assert [round(y + height, 6) for _, y, _, height in chart.bars] == [chart.bottom] * 2
    assert [y for _, y, _, _ in chart.bars] == [(chart.top + chart.bottom) / 2, chart.top]
    assert chart.across_ticks[0][0] == chart.left
    assert chart.across_ticks[-1][0] == chart.right
