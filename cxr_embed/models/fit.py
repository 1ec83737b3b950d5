"""Converts a radiograph to a model's image input: size, channels, dtype and range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from cxr_embed.models.resizing import FULL_RANGE, STRETCHED, Resizing, resized
from cxr_embed.radiograph import Radiograph

# Part of every fingerprint. Increase it whenever a change here, in the renderings or in the readers
# changes any pixel.
PREPROCESSING_VERSION = 1


@dataclass(frozen=True)
class ModelInput:
    """An input of image arrays.

    Attributes:
        height: rows, or None if the model accepts any size.
        width: columns, or None.
        channels: 1 or 3.
        dtype: `float32`, `float16`, `bfloat16`, `uint8` or `uint16`.
        low: value of the lowest pixel of the full range; for floats only.
        high: value of the highest pixel of the full range; for floats only.
        mean: what is subtracted after the range: one value, or one for each channel.
        std: what is divided by after that, likewise.
        resizing: how a radiograph gets the size.
        layout: axis order of a batch, `NHWC` or `NCHW`.
    """

    height: int | None
    width: int | None
    channels: int = 3
    dtype: str = "float32"
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resizing: Resizing = STRETCHED
    layout: str = "NHWC"

    @property
    def is_float(self) -> bool:
        """Whether pixels are floats in `low`..`high`; else they have their type's full range."""
        return self.dtype.endswith(("float32", "float16"))

    @property
    def is_open(self) -> bool:
        """Whether the model accepts any image size, so that radiographs are not resized."""
        return self.height is None or self.width is None

    @property
    def is_standardised(self) -> bool:
        """Whether `mean` and `std` change anything."""
        return set(self.mean) != {0.0} or set(self.std) != {1.0}


def fit_image(radiograph: Radiograph, wanted: ModelInput) -> np.ndarray:
    """Converts a radiograph to a model's input.

    The full range of the pixels' dtype is scaled to the wanted range. By default the image is
    resized without keeping its aspect ratio, as in CXR Foundation's graph: by area averaging if an
    axis shrinks, bilinearly if it grows. All channels are equal before `mean` and `std`.

    Args:
        radiograph: pixels of shape (rows, columns).
        wanted: the model's input.

    Returns:
        Array of the wanted dtype and of shape (height, width, channels), or (channels, height,
        width) for the layout `NCHW`.
    """
    pixels = radiograph.pixels
    height, width = pixels.shape
    if not wanted.is_open:
        height, width = cast(int, wanted.height), cast(int, wanted.width)
    outside = -wanted.low / (wanted.high - wanted.low) * FULL_RANGE  # the value that becomes 0
    grey = resized(pixels, height, width, wanted.resizing, outside)
    if wanted.is_float:
        grey *= np.float32((wanted.high - wanted.low) / FULL_RANGE)
        if wanted.low:
            grey += np.float32(wanted.low)
    else:
        grey *= np.float32(np.iinfo(wanted.dtype).max / FULL_RANGE)
        grey = np.rint(grey).astype(wanted.dtype)
    image = _with_channels(grey, wanted)
    return image.astype(numpy_type(wanted.dtype), copy=False) if wanted.is_float else image


def _with_channels(grey: np.ndarray, wanted: ModelInput) -> np.ndarray:
    axis = 0 if wanted.layout == "NCHW" else 2
    if wanted.is_standardised:
        along = [1, 1, 1]
        along[axis] = -1
        mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
        image = (np.expand_dims(grey, axis) - mean.reshape(along)) / std.reshape(along)
        return np.repeat(image, wanted.channels // image.shape[axis], axis)
    if wanted.channels == 3 and axis == 2:  # OpenCV takes a fraction of NumPy's time
        return cast(np.ndarray, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))
    return np.repeat(np.expand_dims(grey, axis), wanted.channels, axis)


def numpy_type(name: str) -> np.dtype:
    """Returns a NumPy dtype by its name, `bfloat16` included."""
    if name == "bfloat16":
        import ml_dtypes  # NumPy has no bfloat16

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
