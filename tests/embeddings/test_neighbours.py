"""Neighbours are the ones that a scan in float64 finds, whatever the blocks and the engine."""

from __future__ import annotations

import importlib.util
import tracemalloc

import numpy as np
import pytest

from cxr_embed.embeddings import neighbours as search
from cxr_embed.errors import UsageError

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.standard_normal((500, 24), dtype=np.float32) + 2


@pytest.fixture(params=["exact", "faiss"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(search, "BLOCK_ROWS", 64)  # the last block is shorter than k
    return str(request.param)


def all_cosines(centre: np.ndarray | float = 0.0) -> np.ndarray:
    moved = VALUES.astype(np.float64) - centre
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved @ moved.T


@pytest.mark.parametrize("is_centred", [False, True])
def test_the_nearest(engine: str, is_centred: bool) -> None:
    centre = search.mean(VALUES) if is_centred else None
    cosines = all_cosines(centre if centre is not None else 0.0)
    found = search.nearest(VALUES, VALUES[:40], 60, centre=centre, engine=engine)
    expected = np.argsort(-cosines[:40], axis=1, kind="stable")[:, :60]
    assert (found.rows == expected).mean() > 0.99  # cosines that differ in the 7th digit may swap
    np.testing.assert_allclose(
        found.similarities, np.take_along_axis(cosines[:40], expected, axis=1), atol=2e-6
    )


def test_a_query_is_not_its_own_neighbour(engine: str) -> None:
    rows = np.array([7, 499, -1])
    with_itself = search.nearest(VALUES, VALUES[rows], 6, engine=engine)
    found = search.nearest(VALUES, VALUES[rows], 5, leave_out=rows, engine=engine)
    assert found.rows.shape == (3, 5)
    np.testing.assert_array_equal(found.rows[:2], with_itself.rows[:2, 1:])
    np.testing.assert_array_equal(found.rows[2], with_itself.rows[2, :5])


def test_rows_of_the_own_group_are_not_found(engine: str) -> None:
    of_rows = RANDOM.integers(0, 60, len(VALUES))
    of_rows[::9] = -1
    rows = np.array([1, 2, 200, 499])
    found = search.nearest(
        VALUES, VALUES[rows], 30, groups=search.Groups(of_rows, of_rows[rows]), engine=engine
    )
    cosines = all_cosines()[rows]
    for query, row in enumerate(rows):
        allowed = np.flatnonzero((of_rows != of_rows[row]) & (of_rows >= 0))
        expected = allowed[np.argsort(-cosines[query, allowed], kind="stable")[:30]]
        np.testing.assert_array_equal(found.rows[query], expected)


def test_where_all_are_of_the_own_group_rows_are_missing() -> None:
    groups = search.Groups(np.array([3, 3, -1, 8]), np.array([3]))
    found = search.nearest(VALUES[:4], VALUES[:1], 3, groups=groups)
    assert found.rows.tolist() == [[3, -1, -1]]


def test_fewer_than_asked_for(engine: str) -> None:
    assert search.nearest(VALUES[:3], VALUES[:1], 10, engine=engine).rows.shape == (1, 3)
    found = search.nearest(VALUES[:3], VALUES[:1], 10, leave_out=np.array([0]), engine=engine)
    assert sorted(found.rows[0]) == [1, 2]
    assert search.nearest(VALUES[:1], VALUES[:1], 1, leave_out=np.array([0])).rows.shape == (1, 0)


def test_equal_ones_come_by_row(engine: str) -> None:
    values = np.tile(VALUES[:1], (200, 1))
    found = search.nearest(values, values[:1], 200, engine=engine)
    np.testing.assert_array_equal(found.rows[0], np.arange(200))
    assert found.similarities.max() <= 1.0


def test_a_vector_without_length_is_alike_to_nothing(engine: str) -> None:
    values = VALUES[:9].copy()
    values[4] = 0
    found = search.nearest(values, values[:5], 9, engine=engine)
    assert found.similarities[0, found.rows[0] == 4] == 0
    assert (found.similarities[4] == 0).all()


def test_many_queries_go_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search.nearest(VALUES, VALUES, 5)
    monkeypatch.setattr(search, "_MOST_SCORES", 5000)
    np.testing.assert_array_equal(search.nearest(VALUES, VALUES, 5).rows, whole.rows)


def test_the_matrix_is_not_copied() -> None:
    values = np.ones((40_000, 256), np.float32)
    values[:, 0] = np.arange(len(values))
    tracemalloc.start()
    search.nearest(values, values[:1], 10)
    search.nearest(values, values[:1], 10, centre=search.mean(values))
    search.lengths(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 3


def test_faiss_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install"):
        search.nearest(VALUES, VALUES[:1], 1, engine="faiss")
    assert len(search.nearest(VALUES, VALUES, 1, engine="auto").rows) == len(VALUES)
