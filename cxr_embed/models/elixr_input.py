"""The preprocessing of the graph `elixr-c-v2-pooled`, for calls of the network inside it.

The network accepts batches of any size, while the graph around it accepts one image. Third parties
report that these steps give the same bits as the graph. This project has not compared them, since
the model was not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cxr_embed.models.tf_example import upper_8_bits
from cxr_embed.radiograph import Radiograph


@dataclass(frozen=True)
class ElixrInput:
    """The input of the network: a resized image whose minimum and maximum become 0 and 1.

    Attributes:
        height: rows.
        width: columns.
        channels: number of equal channels.
        bits: 8 to keep only the upper 8 bits; None keeps all bits.
    """

    is_open: ClassVar[bool] = False

    height: int
    width: int
    channels: int = 3
    bits: int | None = None


def fit_elixr(radiograph: Radiograph, wanted: ElixrInput) -> np.ndarray:
    """Returns float32 of shape (height, width, channels) in 0..1; a constant image becomes 0."""
    pixels = upper_8_bits(radiograph.pixels) if wanted.bits == 8 else radiograph.pixels
    grey = resize_like_tensorflow_1(pixels, wanted.height, wanted.width)
    low, high = grey.min(), grey.max()
    grey = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    return np.repeat(grey[:, :, np.newaxis], wanted.channels, axis=2)


def resize_like_tensorflow_1(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes as `tf.compat.v1.image.resize_bilinear(half_pixel_centers=False)` does.

    Pixel i of the result is interpolated at position i * old / new of the original. A large image
    is sampled without averaging. The float32 operations have the order of TensorFlow's CPU kernel.

    Args:
        pixels: shape (rows, columns).
        height: rows of the result.
        width: columns of the result.

    Returns:
        float32 of shape (height, width), in the range of the pixels.
    """
    rows, columns = pixels.shape
    above, below, down = _neighbours(rows, height)
    left, right, across = _neighbours(columns, width)
    top, bottom = pixels[above].astype(np.float32), pixels[below].astype(np.float32)
    top = top[:, left] + (top[:, right] - top[:, left]) * across
    bottom = bottom[:, left] + (bottom[:, right] - bottom[:, left]) * across
    return np.asarray(top + (bottom - top) * down[:, np.newaxis], np.float32)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the two neighbours of each new pixel, and its distance from the first one."""
    places = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
    lower = np.floor(places)
    first = lower.astype(np.intp)
    return first, np.minimum(first + 1, old - 1), places - lower
