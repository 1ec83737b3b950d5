"""Logits of a linear part; `test_training.py` has what is solved for it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cxr_embed.heads.linear import Line


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_logits_are_the_products(rows: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((rows, 7), np.float32)
    line = Line(rng.standard_normal(7), 0.5)
    logits = line.logits(values)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, values.astype(np.float64) @ line.weights + 0.5, rtol=1e-12)


def test_a_large_matrix_is_not_copied() -> None:
    values = np.ones((40_000, 256), np.float32)
    line = Line(np.ones(256), 0.0)
    tracemalloc.start()
    try:
        line.logits(values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes / 2
