"""A radiograph to what one model takes: size, channels, type and range. No model is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from cxr_embed.radiograph import Radiograph

# Part of every fingerprint: raise it whenever a change here, in the renderings or in the reading
# of files moves a single pixel.
PREPROCESSING_VERSION = 1


_FULL_RANGE = 65535


@dataclass(frozen=True)
class ModelInput:
    """What a model of the kind `image` takes.

    Attributes:
        height: rows, or None where the model takes any size.
        width: columns, or None.
        channels: 1 or 3.
        dtype: `float32`, `uint8` or `uint16`.
        low: where the darkest pixel of the full range goes; for float32 only.
        high: where the brightest goes; for float32 only.
    """

    height: int | None
    width: int | None
    channels: int = 3
    dtype: str = "float32"
    low: float = 0.0
    high: float = 1.0

    @property
    def is_open(self) -> bool:
        """Whether each radiograph goes in at its own size."""
        return self.height is None or self.width is None


def fit_image(radiograph: Radiograph, wanted: ModelInput) -> np.ndarray:
    """Fits a radiograph to a model's input.

    The pixels' type is spread over the wanted range; the image is resized without keeping its
    aspect ratio, as CXR Foundation's own graph does: by area where it shrinks, bilinearly where it
    grows; grey is repeated over the channels.

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
    """Resizes each axis for itself: by area where it shrinks, bilinearly where it grows.

    Averages over rows are rounded to 16 bits, which is as fine as the pixels themselves; with that
    the result is within 1e-5 of the full range of exact area averages.

    Args:
        pixels: uint8 or uint16 of shape (rows, columns).
        height: rows wanted.
        width: columns wanted.

    Returns:
        float32 of shape (height, width), the full range being 0..65535.
    """
    rows, columns = pixels.shape
    if pixels.dtype == np.uint8:
        pixels = pixels * np.uint16(257)
    # OpenCV averages over both axes in one pass, too, but falls back to no antialiasing at all as
    # soon as one of them grows, and takes three times as long: see _shrink_rows.
    grey = (_shrink_rows(pixels, height) if height < rows else pixels).astype(np.float32)
    if width < columns:
        grey = cv2.resize(grey, (width, grey.shape[0]), interpolation=cv2.INTER_AREA)
    if grey.shape != (height, width):
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return grey


def _shrink_rows(pixels: np.ndarray, height: int) -> np.ndarray:
    """Area-averages over rows only; uint16 of shape (height, columns).

    OpenCV walks along a row adding up one channel at a time. Four neighbouring columns, taken for
    the four channels of one pixel, are added side by side, which doubles the speed.
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
