"""A radiograph gets a model's size as published models want it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cxr_embed.models.fit import ModelInput, fit_image
from cxr_embed.models.resizing import Resizing, resized
from cxr_embed.radiograph import Radiograph

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def arbitrary(rows: int, columns: int, dtype: type = np.uint16) -> np.ndarray:
    """Noise with hard edges, where bicubic interpolation goes beyond the range."""
    random = np.random.default_rng(rows * columns)
    pixels = random.integers(0, np.iinfo(dtype).max, (rows, columns), dtype, endpoint=True)
    pixels[: rows // 4, : columns // 2] = np.iinfo(dtype).max
    pixels[-rows // 4 :, columns // 3 :] = 0
    return pixels


def ramp(rows: int, columns: int) -> np.ndarray:
    """Each pixel is its own column's number, 100 times."""
    return np.tile(np.arange(columns, dtype=np.uint16) * 100, (rows, 1))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(200, 90), (30, 20), (20, 100)])
def test_8_bits_give_the_bytes_of_pillow(interpolation: str, shape: tuple[int, int]) -> None:
    pixels = arbitrary(*shape, np.uint8)
    pillow = Image.fromarray(pixels).resize((37, 48), FILTERS[interpolation])
    how = Resizing(interpolation=interpolation, bits=8)
    np.testing.assert_array_equal(resized(pixels, 48, 37, how), np.asarray(pillow) * 257.0)
    deep = np.minimum(pixels * 257.0 + 100, 65535).astype(np.uint16)  # to the nearest of 8 bits
    np.testing.assert_array_equal(resized(deep, 48, 37, how), np.asarray(pillow) * 257.0)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_16_bits_keep_their_depth_and_range(interpolation: str) -> None:
    pixels = arbitrary(200, 90)
    found = resized(pixels, 48, 37, Resizing(interpolation=interpolation))
    eight = resized(pixels, 48, 37, Resizing(interpolation=interpolation, bits=8))
    assert (found.min(), found.max()) == (0, 65535)
    assert 0 < np.abs(found - eight).max() < 1.5 * 257  # rounded before, between and after
    assert np.abs(found - np.rint(found)).max() > 0.1


@pytest.mark.parametrize("interpolation", ["area", "gaussian"])
def test_8_bits_stay_8_bits_in_every_interpolation(interpolation: str) -> None:
    found = resized(arbitrary(99, 70), 24, 32, Resizing(interpolation=interpolation, bits=8))
    assert np.abs(found / 257 - np.rint(found / 257)).max() < 1e-4


def test_a_gaussian_filter_with_linear_interpolation_is_as_in_scikit_image() -> None:
    """The steps of `skimage.transform.resize(..., mode="constant", anti_aliasing=True)`."""
    pixels, outside = arbitrary(120, 75), 32767.5
    factors = np.array([120 / 24, 75 / 32])
    expected = ndimage.gaussian_filter(
        pixels.astype(np.float64), (factors - 1) / 2, mode="grid-constant", cval=outside
    )
    expected = ndimage.zoom(
        expected, 1 / factors, order=1, mode="grid-constant", cval=outside, grid_mode=True
    )
    found = resized(pixels, 24, 32, Resizing(interpolation="gaussian"), outside)
    np.testing.assert_allclose(found, expected, atol=0.05, rtol=0)


def test_outside_of_the_image_is_0_in_the_models_range() -> None:
    """As in torchxrayvision, whose range of -1024..1024 has 0 in the middle."""
    white = Radiograph(np.full((90, 90), 65535, np.uint16))
    how = Resizing(interpolation="gaussian")
    corner = fit_image(white, ModelInput(9, 9, 1, low=-1024, high=1024, resizing=how))[0, 0, 0]
    deeper = fit_image(white, ModelInput(9, 9, 1, low=-4096, high=1024, resizing=how))[0, 0, 0]
    assert corner == pytest.approx(deeper, rel=1e-5)
    assert 300 < corner < 1000


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic", "gaussian"])
def test_the_shortest_edge_is_resized_and_the_centre_cut_out(interpolation: str) -> None:
    how = Resizing("shortest_edge", interpolation=interpolation)
    found = resized(ramp(100, 300), 50, 50, how)  # 50 x 150, of which the columns 50 to 99
    assert found.shape == (50, 50)
    if interpolation != "gaussian":  # which mixes the rows at the edges with what is outside
        assert found[0, [0, -1]] == pytest.approx([100.5 * 100, 198.5 * 100], abs=60)
    np.testing.assert_allclose(found[25], found[20], atol=0.1)


def test_a_larger_shortest_edge_cuts_more_away() -> None:
    found = resized(ramp(100, 300), 50, 50, Resizing("shortest_edge", 100))
    np.testing.assert_array_equal(found, ramp(100, 300)[25:75, 125:175])


@pytest.mark.parametrize(("crop", "first"), [("transformers", 1), ("torchvision", 2)])
def test_half_of_three_pixels_is_rounded_as_each_library_does(crop: str, first: int) -> None:
    found = resized(ramp(50, 53), 50, 50, Resizing("shortest_edge", crop=crop))
    np.testing.assert_array_equal(found, ramp(50, 53)[:, first : first + 50])


def test_the_longer_edge_is_rounded_down() -> None:
    """100 x 155 becomes 50 x 77, not 50 x 77.5 or 78."""
    found = resized(ramp(100, 155), 50, 50, Resizing("shortest_edge", interpolation="bilinear"))
    step = np.diff(found[0])[5:-5].mean()
    assert step == pytest.approx(100 * 155 / 77, rel=1e-4)


def test_torchxrayvision_cuts_out_the_centre_first() -> None:
    how = Resizing("shortest_edge", crop="torchxrayvision")
    found = resized(ramp(64, 107), 32, 32, how)
    first = 107 // 2 - 64 // 2
    expected = ramp(64, 107)[::2, first : first + 64].reshape(32, 32, 2).mean(axis=2)
    np.testing.assert_array_equal(found, expected)
    assert resized(ramp(60, 200), 32, 64, how).shape == (32, 64)


@pytest.mark.parametrize(("shape", "empty"), [((60, 120), (16, 0)), ((120, 60), (0, 16))])
def test_padding_keeps_all_of_the_image_and_its_aspect_ratio(
    shape: tuple[int, int], empty: tuple[int, int]
) -> None:
    white = np.full(shape, 65535, np.uint16)
    found = resized(white, 64, 64, Resizing("pad"))
    rows, columns = empty
    inside = found[rows : 64 - rows, columns : 64 - columns]
    assert inside.min() > 65534
    assert found.sum() == pytest.approx(inside.sum())  # all else is 0


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1)])
@pytest.mark.parametrize("mode", ["stretch", "shortest_edge", "pad"])
@pytest.mark.parametrize("interpolation", ["area", "bicubic", "gaussian"])
def test_extreme_shapes_need_no_extreme_memory(
    shape: tuple[int, int], mode: str, interpolation: str
) -> None:
    how = Resizing(mode, interpolation=interpolation)
    assert resized(arbitrary(*shape), 518, 518, how).shape == (518, 518)


def test_mean_and_std_follow_the_range_for_each_channel() -> None:
    pixels = Radiograph(np.array([[0, 65535]], np.uint16))
    one = fit_image(pixels, ModelInput(1, 2, 3, mean=(0.5,), std=(0.25,)))
    np.testing.assert_array_equal(one, [[[-2] * 3, [2] * 3]])
    three = fit_image(
        pixels, ModelInput(1, 2, 3, low=0, high=10, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    )
    np.testing.assert_allclose(three, [[[-1, -1, -0.75], [9, 4, 1.75]]])
    assert three.dtype == np.float32
