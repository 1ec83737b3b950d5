"""Converts a radiograph to a model's image input: size, channels, dtype and range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from cxr_embed.radiograph import Radiograph

# Part of every fingerprint. Increase it whenever a change here, in the renderings or in the readers
# changes any pixel.
PREPROCESSING_VERSION = 1


_FULL_RANGE = 65535


@dataclass(frozen=True)
class ModelInput:
    """An input of image arrays.

    Attributes:
        height: rows, or None if the model accepts any size.
        width: columns, or None.
        channels: 1 or 3.
        dtype: `float32`, `uint8` or `uint16`.
        low: value of the lowest pixel of the full range; for float32 only.
        high: value of the highest pixel of the full range; for float32 only.
    """

    height: int | None
    width: int | None
    channels: int = 3
    dtype: str = "float32"
    low: float = 0.0
    high: float = 1.0

    @property
    def is_open(self) -> bool:
        """Whether the model accepts any image size, so that radiographs are not resized."""
        return self.height is None or self.width is None


def fit_image(radiograph: Radiograph, wanted: ModelInput) -> np.ndarray:
    """Converts a radiograph to a model's input.

    The full range of the pixels' dtype is scaled to the wanted range. The image is resized without
    keeping its aspect ratio, as in CXR Foundation's graph: by area averaging if an axis shrinks,
    bilinearly if it grows. All channels are equal.

    Args:
        radiograph: pixels of shape (rows, columns).
        wanted: the model's input.

    Returns:
        Array of shape (height, width, channels) and the wanted dtype.
    """
    pixels = radiograph.pixels
    height, width = pixels.shape
    if not wanted.is_open:
        height, width = cast(int, wanted.height), cast(int, wanted.width)
    grey = resize(pixels, height, width)
    if wanted.dtype == "float32":
        grey *= np.float32((wanted.high - wanted.low) / _FULL_RANGE)
        if wanted.low:
            grey += np.float32(wanted.low)
    else:
        grey *= np.float32(np.iinfo(wanted.dtype).max / _FULL_RANGE)
        grey = np.rint(grey).astype(wanted.dtype)
    if wanted.channels == 3:
        return cast(np.ndarray, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))
    return np.repeat(grey[:, :, np.newaxis], wanted.channels, axis=2)


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
    if pixels.dtype == np.uint8:
        pixels = pixels * np.uint16(257)
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
