"""Cloudy noise: the unevenness of living tissue."""

from __future__ import annotations

import cv2
import numpy as np

from phantom.projection import FloatArray, Frame


def fractal(frame: Frame, rng: np.random.Generator, largest: float) -> FloatArray:
    """Cloudy noise with details of every size up to ``largest`` cm.

    Returns:
        float32 (rows, columns) of mean about 0 and deviation about 1.
    """
    total = np.zeros((frame.rows, frame.columns), dtype=np.float32)
    weight, size = 1.0, largest * frame.scale
    power = 0.0
    for _ in range(5):
        if size < 1.5:
            break
        grid = rng.standard_normal(
            (int(frame.rows / size) + 3, int(frame.columns / size) + 3), dtype=np.float32
        )
        large = cv2.resize(grid, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
        total += weight * large[: frame.rows, : frame.columns]
        power += weight**2
        weight, size = 0.6 * weight, 0.5 * size
    return total / np.float32(max(0.7 * power**0.5, 0.1))
