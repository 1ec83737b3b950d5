"""Radiographs to model inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_embed.models.fit import ModelInput, fit_image
from cxr_embed.radiograph import Radiograph

RAMP = Radiograph(np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (48, 1)))


def test_full_range_goes_to_0_and_1() -> None:
    fitted = fit_image(RAMP, ModelInput(48, 64, 1))
    assert fitted.dtype == np.float32
    assert fitted.shape == (48, 64, 1)
    assert (fitted.min(), fitted.max()) == (0.0, 1.0)


def test_8_bit_pixels_are_scaled_by_their_own_full_range() -> None:
    eight = Radiograph(np.array([[0, 51], [102, 255]], np.uint8))
    assert fit_image(eight, ModelInput(2, 2, 1)).ravel() == pytest.approx([0, 0.2, 0.4, 1])


def test_another_range_may_be_asked_for() -> None:
    fitted = fit_image(RAMP, ModelInput(48, 64, 1, low=-1.0, high=1.0))
    assert (fitted.min(), fitted.max()) == (-1.0, 1.0)


def test_grey_is_repeated_over_three_channels() -> None:
    fitted = fit_image(RAMP, ModelInput(10, 10, 3))
    assert fitted.shape == (10, 10, 3)
    assert (fitted == fitted[:, :, :1]).all()


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_integer_inputs_use_their_types_range(dtype: str, top: int) -> None:
    fitted = fit_image(RAMP, ModelInput(48, 64, 1, dtype))
    assert fitted.dtype == dtype
    assert (fitted.min(), fitted.max()) == (0, top)


def test_shrinking_averages_areas() -> None:
    checks = Radiograph((np.indices((40, 40)).sum(axis=0) % 2 * 255).astype(np.uint8))
    fitted = fit_image(checks, ModelInput(10, 10, 1))
    assert fitted == pytest.approx(0.5, abs=1e-5)


def averages(length: int, parts: int) -> np.ndarray:
    """Returns the matrix (parts, length) that averages over equal parts, exactly."""
    edges = np.arange(parts + 1) * length / parts
    pixel = np.arange(length)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.clip(covered, 0, None) * parts / length


@given(st.integers(1, 130), st.integers(1, 130), st.data())
def test_shrinking_is_exact_to_a_hundred_thousandth(rows: int, columns: int, data: Any) -> None:
    height = data.draw(st.integers(1, rows))
    width = data.draw(st.integers(1, columns))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    top = np.iinfo(dtype).max
    seed = data.draw(st.integers(0, 2**32 - 1))
    pixels = np.random.default_rng(seed).integers(0, top, (rows, columns), dtype, endpoint=True)
    exact = averages(rows, height) @ (pixels / top) @ averages(columns, width).T
    fitted = fit_image(Radiograph(pixels), ModelInput(height, width, 1))[:, :, 0]
    np.testing.assert_allclose(fitted, exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(10, 200), (200, 10)])
def test_shrinking_one_axis_while_the_other_grows_is_antialiased_too(
    size: tuple[int, int],
) -> None:
    checks = Radiograph((np.indices((80, 80)).sum(axis=0) % 2 * 255).astype(np.uint8))
    fitted = fit_image(checks, ModelInput(*size, 1))
    assert fitted.shape == (*size, 1)
    assert fitted == pytest.approx(0.5, abs=0.01)


def test_the_aspect_ratio_is_not_kept_and_nothing_is_cropped() -> None:
    fitted = fit_image(RAMP, ModelInput(64, 16, 1))[:, :, 0]
    assert fitted.shape == (64, 16)
    assert fitted[0, 0] < 0.03
    assert fitted[0, -1] > 0.97


def test_an_open_size_keeps_each_radiographs_own() -> None:
    assert fit_image(RAMP, ModelInput(None, None, 3)).shape == (48, 64, 3)
