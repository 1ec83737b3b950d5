"""Diseases that a chest film can show, as air lost from the lung."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from phantom.anatomy import Anatomy
from phantom.projection import FloatArray, Frame, ellipsoid
from phantom.texture import fractal

Finding = Literal["opacity", "effusion", "nodule", "cardiomegaly"]
FINDINGS: tuple[Finding, ...] = get_args(Finding)


def air_left(
    finding: Finding | None,
    frame: Frame,
    anatomy: Anatomy,
    lung: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """The share of the lung along each ray that a disease leaves aerated.

    Args:
        finding: What is wrong; an enlarged heart and a healthy chest lose no air.
        frame: The image plane.
        anatomy: The person.
        lung: Lung thickness of the healthy chest, float (rows, columns), cm.
        rng: Places the disease.

    Returns:
        float32 (rows, columns) in 0..1.
    """
    side = 1 if rng.random() < 0.5 else -1
    spot = np.array(
        [side * rng.uniform(5.5, 8.5) * anatomy.width, rng.uniform(-6, 2), rng.uniform(-4.5, 4.5)]
    )
    if finding == "opacity":
        return 1 - _cloud(frame, spot, rng)
    if finding == "effusion":
        return 1 - _fluid(frame, anatomy, side, rng)
    if finding == "nodule":
        radius = rng.uniform(0.9, 1.5)
        start, end = ellipsoid(frame, tuple(spot), (radius, radius, 1.1 * radius))
        return 1 - np.clip((end - start) / np.maximum(lung, 3.0), 0, 1)
    return np.ones_like(lung)


def _cloud(frame: Frame, spot: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A consolidation with a ragged edge: the share of air replaced, float32."""
    across, up = frame.across - spot[frame.axes[0]], frame.up - spot[2]
    wide, tall = rng.uniform(2.4, 4.2, 2)
    distance = np.sqrt((across / wide) ** 2 + (up / tall) ** 2)
    ragged = 1.0 - distance + 0.28 * fractal(frame, rng, 2.0)
    share = rng.uniform(0.35, 0.6) / (1 + np.exp(-6 * np.clip(ragged, -5, 5)))
    return share.astype(np.float32)


def _fluid(frame: Frame, anatomy: Anatomy, side: int, rng: np.random.Generator) -> FloatArray:
    """Fluid at the foot of one lung, creeping up the chest wall: the share replaced, float32."""
    level = -8.0 + anatomy.breath + rng.uniform(-1.0, 3.5)
    width, middle, depth = anatomy.cage(frame.up)
    if frame.lateral:
        climb = ((frame.across - middle) / depth) ** 2
        amount = 0.55
    else:
        climb = np.clip((side * frame.across - 5.0) / np.maximum(width - 5.0, 1.0), 0, 1.2) ** 2
        amount = 0.96
    surface = level + 3.0 * climb
    share = amount / (1 + np.exp(-np.clip((surface - frame.up) / 0.35, -30, 30)))
    if not frame.lateral:
        share = share * (side * frame.across > 0)
    return share.astype(np.float32)
