"""Charts: ticks, their labels and the markup."""

from __future__ import annotations

import re

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
    labels = re.findall(r"<text[^>]*class=\"middle\">([^<]*)</text>", chart)
    assert len(labels) > 2
    assert len(set(labels)) == len(labels)
