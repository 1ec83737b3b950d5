"""The preparation inside elixr-c-v2-pooled, against TensorFlow's own operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cxr_embed.models.elixr_input import ElixrInput, fit_elixr, resize_like_tensorflow_1
from cxr_embed.radiograph import Radiograph

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(31, 17), (100, 200), (61, 43), (1, 1), (128, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_resize_is_tensorflow_1s_to_the_bit(size: tuple[int, int], dtype: Any) -> None:
    import tensorflow as tf

    pixels = RNG.integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)
    expected = tf.compat.v1.image.resize_bilinear(
        pixels[np.newaxis, :, :, np.newaxis], [64, 48], half_pixel_centers=False
    )
    np.testing.assert_array_equal(resize_like_tensorflow_1(pixels, 64, 48), expected[0, :, :, 0])


def test_its_own_range_goes_to_0_and_1_three_times() -> None:
    fitted = fit_elixr(Radiograph(np.array([[100, 200], [300, 500]], np.uint16)), ElixrInput(2, 2))
    assert (fitted.dtype, fitted.shape) == (np.float32, (2, 2, 3))
    np.testing.assert_array_equal(fitted[:, :, 1], [[0, 0.25], [0.5, 1]])
    blank = Radiograph(np.full((5, 5), 7, np.uint8))
    assert not fit_elixr(blank, ElixrInput(4, 4)).any()


def test_upper_8_bits_only() -> None:
    pixels = np.array([[0x0000, 0x01FF], [0x0100, 0x0400]], np.uint16)
    fitted = fit_elixr(Radiograph(pixels), ElixrInput(2, 2, 1, bits=8))
    np.testing.assert_array_equal(fitted[:, :, 0], [[0, 0.25], [0.25, 1]])
