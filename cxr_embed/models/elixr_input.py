"""What the graph of `elixr-c-v2-pooled` does ahead of its network, for calls that start behind it.

The network inside takes true batches, the graph around it one image. Others have compared these
steps with the graph and report the same bits; nobody of this project has had the model at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_embed.models.tf_example import upper_8_bits
from cxr_embed.radiograph import Radiograph


@dataclass(frozen=True)
class ElixrInput:
    """What the network inside takes: a resized image, its own range spread over 0..1.

    Attributes:
        height: rows.
        width: columns.
        channels: grey is repeated this many times.
        bits: 8 to keep the upper 8 bits only; None keeps what the radiograph has.
    """

    height: int
    width: int
    channels: int = 3
    bits: int | None = None


def fit_elixr(radiograph: Radiograph, wanted: ElixrInput) -> np.ndarray:
    """Returns float32 of shape (height, width, channels), from 0 to 1; 0 where all is alike."""
    pixels = upper_8_bits(radiograph.pixels) if wanted.bits == 8 else radiograph.pixels
    grey = resize_like_tensorflow_1(pixels, wanted.height, wanted.width)
    low, high = grey.min(), grey.max()
    grey = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    return np.repeat(grey[:, :, np.newaxis], wanted.channels, axis=2)


def resize_like_tensorflow_1(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes as `tf.compat.v1.image.resize_bilinear(half_pixel_centers=False)` does.

    Pixel i of the result lies at i * old / new of the original, nothing is averaged: a large image
    is sampled, not shrunk. In float32, in the order of TensorFlow's CPU kernel.

    Args:
        pixels: shape (rows, columns).
        height: rows wanted.
        width: columns wanted.

    Returns:
        float32 of shape (height, width), in the pixels' own range.
    """
    rows, columns = pixels.shape
    above, below, down = _neighbours(rows, height)
    left, right, across = _neighbours(columns, width)
    top, bottom = pixels[above].astype(np.float32), pixels[below].astype(np.float32)
    top = top[:, left] + (top[:, right] - top[:, left]) * across
    bottom = bottom[:, left] + (bottom[:, right] - bottom[:, left]) * across
    return np.asarray(top + (bottom - top) * down[:, np.newaxis], np.float32)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the two pixels each new one lies between, and how far it is from the first."""
    places = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
    lower = np.floor(places)
    first = lower.astype(np.intp)
    return first, np.minimum(first + 1, old - 1), places - lower
