"""Resizes a radiograph to a model's size: stretched, cropped or padded, by four interpolations.

Published models were trained on what some library made of their images. A model gets its own
input only if the same filter, the same rounding of sizes and the same crop are used, so each choice
here has the name of what it reproduces. `tests/models/test_published_preprocessing.py` compares
them with the original code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from PIL import Image

FULL_RANGE = 65535
"""The highest value of a resized image; the lowest is 0."""

# A resized or padded image of another shape could fill the memory: 518 pixels for the short edge
# of an image of 1 x 1,000,000 are 268 billion pixels.
_LONGEST_SHAPE = 16

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# 16 bits to the nearest of 8 bits.
_EIGHT_BITS = np.rint(np.arange(FULL_RANGE + 1) / 257).astype(np.uint8)


@dataclass(frozen=True)
class Resizing:
    """How a radiograph gets a model's size.

    Attributes:
        mode: `stretch` to the size without keeping the aspect ratio; `shortest_edge` to resize the
            shorter edge and cut out the centre; or `pad` to the model's aspect ratio, with black.
        shortest_edge: pixels of the shorter edge; None is the model's longer side.
        crop: the centre of `shortest_edge` as one library cuts it out. `transformers` and
            `torchvision` resize first. They differ by one pixel where half the rest is m + 1/2: the
            first rounds down, the second to the even number. `torchxrayvision` cuts out the centre
            with the model's aspect ratio first.
        interpolation: `area` averages, or interpolates bilinearly where an axis grows. `bilinear`
            and `bicubic` are antialiased as Pillow and PyTorch do. `gaussian` is a Gaussian filter
            with bilinear interpolation, as scikit-image's `resize` does for torchxrayvision.
        bits: 8 makes an 8-bit image of the radiograph, which stays one while it is resized; then
            `bilinear` and `bicubic` give the same bytes as Pillow does for that image.
    """

    mode: str = "stretch"
    shortest_edge: int | None = None
    crop: str = "transformers"
    interpolation: str = "area"
    bits: int | None = None


STRETCHED = Resizing()
"""The default: CXR Foundation's."""


def resized(
    pixels: np.ndarray, height: int, width: int, how: Resizing, outside: float = 0.0
) -> np.ndarray:
    """Returns a radiograph at a model's size.

    Args:
        pixels: uint8 or uint16 of shape (rows, columns).
        height: rows of the result.
        width: columns of the result.
        how: the shape and the interpolation.
        outside: the value beyond the edges for `gaussian`, in units of `FULL_RANGE`.

    Returns:
        float32 of shape (height, width); the full range is 0..65535.
    """
    if how.bits == 8:
        pixels = _EIGHT_BITS[_wide(pixels)]
    if how.mode == "pad":
        return _padded(pixels, height, width, how, outside)
    if how.mode == "shortest_edge":
        if how.crop == "torchxrayvision":
            pixels = _centre_of_shape(pixels, height, width)
        else:
            rows, columns = (min(n, _LONGEST_SHAPE * min(pixels.shape)) for n in pixels.shape)
            pixels = _centre(pixels, rows, columns)
            edge = how.shortest_edge or max(height, width)
            # Both libraries round the longer edge down.
            rows, columns = (int(edge * n / min(pixels.shape)) for n in pixels.shape)
            grey = _interpolate(pixels, rows, columns, how, outside)
            return _centre(grey, height, width, to_even=how.crop == "torchvision")
    return _interpolate(pixels, height, width, how, outside)


def _centre(image: np.ndarray, rows: int, columns: int, to_even: bool = False) -> np.ndarray:
    """Returns the centre; half an odd rest is rounded down, or to the even number."""
    rests = (image.shape[0] - rows, image.shape[1] - columns)
    top, left = (round(rest / 2) if to_even else rest // 2 for rest in rests)
    return image[top : top + rows, left : left + columns]


def _centre_of_shape(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the largest centre with the aspect ratio height:width; see XRayCenterCrop."""
    rows, columns = pixels.shape
    cut_rows = max(1, min(rows, round(columns * height / width)))
    cut_columns = max(1, min(columns, round(rows * width / height)))
    top, left = rows // 2 - cut_rows // 2, columns // 2 - cut_columns // 2
    return pixels[top : top + cut_rows, left : left + cut_columns]


def _padded(
    pixels: np.ndarray, height: int, width: int, how: Resizing, outside: float
) -> np.ndarray:
    """Pads to the aspect ratio height:width, then resizes, as MedSigLIP's published server does.

    Images of extreme shapes are resized first, since padding could fill the memory.
    """
    rows, columns = pixels.shape
    all_rows = max(rows, round(columns * height / width))
    all_columns = max(columns, round(rows * width / height))
    if all_rows * all_columns > _LONGEST_SHAPE * rows * columns:
        scale = min(height / rows, width / columns)
        small = _interpolate(
            pixels,
            min(height, max(1, round(rows * scale))),
            min(width, max(1, round(columns * scale))),
            how,
            outside,
        )
        return _pad(small, height, width)
    return _interpolate(_pad(pixels, all_rows, all_columns), height, width, how, outside)


def _pad(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    down, across = rows - image.shape[0], columns - image.shape[1]
    return np.pad(image, ((down // 2, down - down // 2), (across // 2, across - across // 2)))


def _interpolate(
    pixels: np.ndarray, height: int, width: int, how: Resizing, outside: float
) -> np.ndarray:
    if how.interpolation in _FILTERS:
        image = Image.fromarray(pixels if how.bits == 8 else _wide(pixels).astype(np.float32))
        grey = _convolve(image, height, width, how.interpolation).astype(np.float32)
        return grey * np.float32(257) if how.bits == 8 else grey
    if how.interpolation == "gaussian":
        grey = _gaussian(_wide(pixels).astype(np.float32), height, width, outside)
    else:
        grey = resize(pixels, height, width)
    return np.rint(grey / 257) * np.float32(257) if how.bits == 8 else grey


def _convolve(image: Image.Image, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resizes as Pillow does, and PyTorch with `antialias=True`.

    They resize the rows first. Bicubic interpolation goes beyond the range at sharp edges; in 8-bit
    images that is cut off after each axis, and here in images of floats, too.
    """
    for size in ((width, image.height), (width, height)):
        image = image.resize(size, _FILTERS[interpolation])
        if image.mode == "F" and interpolation == "bicubic":
            image = Image.fromarray(np.clip(np.asarray(image), 0, FULL_RANGE))
    return np.asarray(image)


def _gaussian(grey: np.ndarray, height: int, width: int, outside: float) -> np.ndarray:
    """Resizes as `skimage.transform.resize` with `mode="constant"` does, where an axis shrinks."""
    kernels = []
    for old, new in zip(grey.shape, (height, width), strict=True):
        sigma = max(0.0, (old / new - 1) / 2)
        radius = int(4 * sigma + 0.5)  # where scipy.ndimage cuts the filter off
        kernels.append(cv2.getGaussianKernel(2 * radius + 1, max(sigma, 1e-6), cv2.CV_64F))
    grey = grey - np.float32(outside)
    grey = cv2.sepFilter2D(grey, cv2.CV_32F, kernels[1], kernels[0], borderType=cv2.BORDER_CONSTANT)
    grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return grey + np.float32(outside)


def _wide(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels whose full range is 0..65535."""
    return pixels * np.uint16(257) if pixels.dtype == np.uint8 else pixels


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes each axis separately: by area averaging if it shrinks, bilinearly if it grows.

    Averages over rows are rounded to 16 bits. The result differs from exact area averages by at
    most 1e-5 of the full range.

    Args:
        pixels: uint8 or uint16 of shape (rows, columns).
        height: rows of the result.
        width: columns of the result.

    Returns:
        float32 of shape (height, width); the full range is 0..65535.
    """
    rows, columns = pixels.shape
    pixels = _wide(pixels)
    # OpenCV can average over both axes in one call, but that takes three times as long, and if one
    # axis grows it does not antialias the other: see _shrink_rows.
    grey = (_shrink_rows(pixels, height) if height < rows else pixels).astype(np.float32)
    if width < columns:
        grey = cv2.resize(grey, (width, grey.shape[0]), interpolation=cv2.INTER_AREA)
    if grey.shape != (height, width):
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return grey


def _shrink_rows(pixels: np.ndarray, height: int) -> np.ndarray:
    """Averages over rows only; returns uint16 of shape (height, columns).

    OpenCV processes a one-channel row one value at a time. Four neighbouring columns passed as the
    four channels of a pixel are added together, which doubles the speed.
    """
    rows, columns = pixels.shape
    missing = -columns % 4
    if missing:
        pixels = np.pad(pixels, ((0, 0), (0, missing)))
    fours = (columns + missing) // 4
    shrunk = cv2.resize(
        pixels.reshape(rows, fours, 4), (fours, height), interpolation=cv2.INTER_AREA
    )
    return cast(np.ndarray, shrunk.reshape(height, -1)[:, :columns])
