"""A few ellipses that have in common with a chest what coarse statistics see of it."""

from __future__ import annotations

import cv2
import numpy as np


def chest(seed: int) -> np.ndarray:
    """Returns uint16 of shape (160, 140): body, two dark lungs, heart and belly, bright = dense."""
    random = np.random.default_rng(seed)
    picture = np.zeros((160, 140), np.float32)
    x, y = (int(shift) for shift in random.integers(-4, 5, 2))
    cv2.ellipse(picture, (70 + x, 90 + y), (62, 85), 0, 0, 360, 0.55, -1)
    cv2.ellipse(picture, (70 + x, 165 + y), (56, 45), 0, 0, 360, 0.9, -1)
    for side in (-1, 1):
        size = (19 + int(random.integers(-2, 3)), 42 + int(random.integers(-3, 4)))
        cv2.ellipse(picture, (70 + x + side * 28, 72 + y), size, 0, 0, 360, 0.15, -1)
    cv2.ellipse(
        picture, (80 + x, 95 + y), (20, 18 + int(random.integers(0, 6))), 0, 0, 360, 0.8, -1
    )
    picture = cv2.GaussianBlur(picture, (0, 0), 3) + random.normal(0, 0.01, picture.shape)
    return (np.clip(picture, 0, 1) * 65535).astype(np.uint16)
