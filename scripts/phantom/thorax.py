"""Synthetic chest radiographs: one imaginary person, positioned, projected and developed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from phantom import findings, organs
from phantom.anatomy import Anatomy, draw_female
from phantom.film import finish
from phantom.projection import FloatArray, Frame
from phantom.skeleton import bones
from phantom.texture import fractal

FRONTAL_VIEWS = ("PA", "AP")
LATERAL_VIEWS = ("LL", "RL", "LATERAL", "LARGE LATERAL")

# Attenuation per cm at a chest's usual 120 kV, roughly; lung is a quarter as dense as water.
_SOFT, _LUNG, _MARROW, _CORTEX = 0.19, 0.055, 0.17, 0.36
# The anatomy is drawn on at most this many pixels a side and enlarged; the detector's blur makes
# real films hardly sharper, and the noise on top is drawn at full size.
_LARGEST_SIDE, _SMALLEST_SIDE = 1100, 128
# Below this many pixels per cm (a film of some 250 pixels) single vertebrae do not show.
_COARSE = 7.0


def make_radiograph(
    seed: int,
    *,
    rows: int = 3056,
    columns: int = 2544,
    view: str = "PA",
    finding: findings.Finding | None = None,
) -> NDArray[np.float32]:
    """Draws one chest radiograph.

    The same seed gives the same person and positioning with every finding, so that two films
    can differ in nothing but the disease.

    Args:
        seed: Sets the person, the positioning and the noise.
        rows: Height in pixels.
        columns: Width in pixels.
        view: One of FRONTAL_VIEWS or LATERAL_VIEWS; anything else, such as "", counts as PA.
        finding: A disease to add, or None for a healthy chest.

    Returns:
        float32 (rows, columns) in 0..1, bright where dense. The patient's left is on the right
        of a frontal view; the front of the chest is on the right of a lateral one.

    Raises:
        ValueError: The size is not positive or the finding is unknown.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns must be at least 1, not {rows} and {columns}")
    if finding is not None and finding not in findings.FINDINGS:
        known = ", ".join(findings.FINDINGS)
        raise ValueError(f"unknown finding {finding!r}; choose from {known}")
    # Separate streams, so that one more draw in one of them leaves the others as they were.
    person, build, place, sick, dark_room = (
        np.random.default_rng([seed, stream]) for stream in range(5)
    )
    heart = 1.38 if finding == "cardiomegaly" else 1.0
    anatomy = Anatomy.draw(person, supine=view.upper() == "AP", heart=heart)
    frame = _frame(rows, columns, view.upper() in LATERAL_VIEWS, place)
    attenuation, lung = _project(frame, anatomy, build, sick, finding)
    return finish(attenuation, lung, frame, (rows, columns), dark_room)


def _frame(rows: int, columns: int, lateral: bool, rng: np.random.Generator) -> Frame:
    """Chooses the working size and how the chest sits on the detector."""
    longest = max(rows, columns)
    shrink = longest / np.clip(longest, _SMALLEST_SIDE, _LARGEST_SIDE)
    height, width = max(2, round(rows / shrink)), max(2, round(columns / shrink))
    need_across, need_up = (27.5, 34.0) if lateral else (33.0, 33.0)
    scale = min(width / need_across, height / need_up) / rng.uniform(0.95, 1.12)
    # A tall film reaches down the abdomen, not up the neck.
    middle = min(-0.6, 17.0 - height / scale / 2) + rng.normal(0, 0.7)
    centre = ((-1.0 if lateral else 0.0) + rng.normal(0, 0.6), middle)
    return Frame(height, width, scale, centre, lateral)


def _project(
    frame: Frame,
    anatomy: Anatomy,
    rng: np.random.Generator,
    sick: np.random.Generator,
    finding: findings.Finding | None,
) -> tuple[FloatArray, FloatArray]:
    """Attenuation along each ray, and lung thickness in cm; both float32 (rows, columns)."""
    body = cv2.GaussianBlur(organs.body_thickness(frame, anatomy), (0, 0), 0.5 * frame.scale)
    lung = np.minimum(organs.lung_thickness(frame, anatomy), body)
    # The heart beats and the chest breathes while the beam is on.
    lung = cv2.GaussianBlur(lung, (0, 0), 0.035 * frame.scale)
    lung_share = findings.air_left(finding, frame, anatomy, lung, sick)
    lung = lung * lung_share
    total = _SOFT * (body - lung) + _LUNG * lung
    blood = cv2.GaussianBlur(organs.vessels(frame, anatomy, rng), (0, 0), 0.03 * frame.scale)
    total += 1.6 * (_SOFT - _LUNG) * blood * np.clip(lung / 13, 0, 1) ** 1.3
    air = organs.airways(frame, anatomy) + organs.stomach_gas(frame, anatomy, rng)
    total -= _SOFT * cv2.GaussianBlur(air, (0, 0), 0.06 * frame.scale)
    total += _SOFT * np.clip(body / 8, 0, 1) * 0.22 * fractal(frame, rng, 3.0)
    total += 0.014 * np.clip(lung / 10, 0, 1) * fractal(frame, rng, 0.5)
    coarse = frame.scale < _COARSE
    skeleton = bones(anatomy, rng, lateral=frame.lateral, coarse=coarse)
    drawn = [tube.samples(frame, _MARROW, _CORTEX) for tube in skeleton]
    bone = frame.deposit(
        *(np.concatenate([part.ravel() for part in p]) for p in zip(*drawn, strict=True))
    )
    bone = cv2.GaussianBlur(bone, (0, 0), 0.045 * frame.scale)
    total += bone * (1 + 0.08 * fractal(frame, rng, 0.4))
    return total.astype(np.float32), lung


def is_female(seed: int) -> bool:
    """Whether the person that ``make_radiograph`` draws for a seed is a woman."""
    return draw_female(np.random.default_rng([seed, 0]))
