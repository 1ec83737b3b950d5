"""Copies are found, near ones too, and groups hold together."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_embed.embeddings import neighbours as search
from cxr_embed.report import duplicates

VALUES = np.random.default_rng(0).standard_normal((60, 32), dtype=np.float32) + 4
VALUES[10] = VALUES[20] = VALUES[3]
VALUES[41] = VALUES[40] + 0.01


def groups(values: np.ndarray = VALUES) -> list[duplicates.Group]:
    closeness = duplicates.find_closest(values, search.mean(values))
    return duplicates.group_duplicates(closeness, 0.98, duplicates.identical_rows(values))


def test_groups() -> None:
    found = groups()
    assert [group.rows for group in found] == [[3, 10, 20], [40, 41]]
    assert found[0].similarity == pytest.approx(1)
    assert 0.98 < found[1].similarity < 1


def test_among_many_a_sample_is_compared_and_exact_copies_are_still_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "MOST_COMPARISONS", 60 * 4)
    closeness = duplicates.find_closest(VALUES, search.mean(VALUES))
    assert closeness.is_sample
    assert closeness.neighbours.rows.shape == (4, duplicates.NEIGHBOURS)
    assert [3, 10, 20] in [group.rows for group in groups()]


def test_nearest_neighbours_of_a_copy() -> None:
    closeness = duplicates.find_closest(VALUES, search.mean(VALUES))
    assert not closeness.is_sample
    assert closeness.mean_similarities.shape == (60,)
    assert sorted(closeness.neighbours.rows[3, :2]) == [10, 20]


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two(count: int) -> None:
    assert groups(VALUES[:count]) == []
