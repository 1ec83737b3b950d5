"""Principal components are the ones of a full decomposition; UMAP comes without TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from cxr_embed.report import maps

RANDOM = np.random.default_rng(0)
SCALES = 1 / np.arange(1, 301, dtype=np.float32)
VALUES = RANDOM.standard_normal((400, 300), dtype=np.float32) * SCALES + 5


def test_they_are_the_ones_of_a_full_decomposition() -> None:
    found = maps.principal_components(VALUES)
    moved = VALUES - VALUES.mean(axis=0)
    _, singular, axes = np.linalg.svd(moved.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(found.shares[:5], (singular**2 / (singular**2).sum())[:5], rtol=1e-3)
    alike = np.abs((found.axes[:2] * axes[:2]).sum(axis=1))
    np.testing.assert_allclose(alike, 1, atol=1e-3)
    np.testing.assert_allclose(found.project(VALUES)[:, :2], moved @ found.axes[:2].T, atol=1e-4)


def test_the_same_every_time_and_either_way_up() -> None:
    once, again = maps.principal_components(VALUES), maps.principal_components(VALUES)
    np.testing.assert_array_equal(once.axes, again.axes)
    mirrored = maps.principal_components(VALUES, seed=7)
    np.testing.assert_allclose(once.axes[:2], mirrored.axes[:2], atol=1e-3)


def test_many_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "_MOST_ROWS", 200)
    found = maps.principal_components(VALUES)
    assert found.rows == 200
    whole = np.abs(found.project(VALUES)).max(axis=0)
    assert whole[0] > whole[10]


@pytest.mark.parametrize("shape", [(1, 8), (2, 8), (5, 1)])
def test_next_to_nothing(shape: tuple[int, int]) -> None:
    values = RANDOM.standard_normal(shape, dtype=np.float32)
    found = maps.principal_components(values)
    assert np.isfinite(found.project(values)).all()
    assert found.shares.sum() <= 1.001


def test_all_the_same() -> None:
    found = maps.principal_components(np.ones((9, 4), np.float32))
    assert np.isfinite(found.shares).all()
    np.testing.assert_allclose(found.project(np.ones((9, 4), np.float32)), 0, atol=1e-6)


def test_umap_in_a_process_of_its_own() -> None:
    program = """
import sys, numpy as np
from cxr_embed.report import maps
values = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
values[20:] += 30
first, second = maps.umap(values), maps.umap(values)
assert first.shape == (40, 2) and first.dtype == np.float32
assert (first == second).all()
near = np.linalg.norm(first[:20] - first[:20].mean(0), axis=1).max()
assert np.linalg.norm(first[:20].mean(0) - first[20:].mean(0)) > near
assert not any(name.startswith("tensorflow") for name in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"NUMBA_OPT": "0"},  # less time is spent on compiling
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
