"""One imaginary person: the measures of a chest, drawn from a seed.

Lengths are centimetres; x to the patient's left, y to the front, z to the head, with z = 0 near
the middle of the chest. The numbers are an average adult's, read off anatomy atlases by eye:
they have to look right, not to be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from phantom.projection import FloatArray

# (z, value) knots of an average chest at full inspiration.
_CAGE_WIDTH = [
    (12.9, 3.6), (12.3, 4.8), (11.3, 6.3), (10, 7.7), (8, 9.3), (5, 11.2), (2, 12.5), (-2, 13.6),
    (-7, 14.3), (-12, 14.2), (-16, 13.4), (-22, 12.5),
]  # fmt: skip
_CAGE_FRONT = [
    (12.9, -3.2), (12, -2.6), (11, -1.2), (9, 1.8), (6, 4.4), (2, 6.6), (-3, 8.5), (-8, 9.6),
    (-13, 9.8), (-22, 9.0),
]  # fmt: skip
_CAGE_BACK = [
    (12.9, -4.2), (12, -5.2), (11, -6.2), (9, -7.6), (5, -9.4), (0, -10.6), (-5, -10.9),
    (-10, -10.4), (-15, -9.6), (-22, -8.8),
]  # fmt: skip
_SPINE_BODY = [(20, -1.2), (16, -2.2), (12, -4.2), (7, -6.3), (1, -7.6), (-5, -7.6), (-11, -6.6),
               (-16, -5.2), (-22, -4.2)]  # fmt: skip
# Outline of heart and great vessels from the midline, as a frontal film shows it: on the left the
# aortic knob, the pulmonary trunk and the left ventricle, on the right the caval vein and atrium.
_OUTLINE_LEFT = [
    (14, 5.2), (13, 4.6), (12.4, 3.5), (11.7, 2.9), (10, 2.6), (8.4, 2.5), (7.2, 3.0), (6.1, 3.7),
    (5.0, 3.7), (4.1, 3.1), (3.3, 3.0), (2.2, 3.5), (1, 3.8), (-0.5, 4.4), (-2.5, 5.9), (-4.5, 7.4),
    (-6.5, 8.4), (-8, 8.6), (-9.5, 7.9), (-11, 6.2), (-14, 4.0),
]  # fmt: skip
_OUTLINE_RIGHT = [
    (14, 5.2), (13, 4.6), (12.4, 3.6), (11.7, 3.0), (10, 2.7), (8, 2.5), (5, 2.6), (2.5, 2.7),
    (1, 3.0), (-1, 3.7), (-3.5, 4.3), (-6, 4.2), (-8, 3.6), (-10, 2.8), (-14, 2.6),
]  # fmt: skip
_HEART_MIDDLE = [(14, -3.4), (8, -1.8), (4, -0.6), (0, 0.9), (-4, 1.9), (-8, 2.7), (-14, 2.7)]
_HEART_DEPTH = [(14, 4.4), (10, 4.6), (6, 5.2), (3, 5.4), (0, 6.2), (-3, 6.9), (-7, 6.9),
                (-10, 6.2), (-14, 4.0)]  # fmt: skip


class Profile:
    """A smooth curve through knots: value by height."""

    def __init__(
        self,
        knots: Sequence[tuple[float, float]],
        scale: float = 1.0,
        shift: float = 0.0,
        smooth: float = 0.7,
    ) -> None:
        """Tabulates the curve.

        Args:
            knots: (z, value) pairs in any order, cm.
            scale: Multiplies every value.
            shift: Added after scaling, cm.
            smooth: Standard deviation of the smoothing along z, cm.
        """
        step = 0.05
        z, value = np.array(sorted(knots)).T
        self._z = np.arange(-40, 40, step)
        line = np.interp(self._z, z, value) * scale + shift
        if smooth > 0:
            reach = int(3 * smooth / step)
            kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / smooth) ** 2)
            padded = np.pad(line, reach, mode="edge")
            line = np.convolve(padded, kernel / kernel.sum(), mode="valid")
        self._value = line

    def __call__(self, z: FloatArray | float) -> FloatArray:
        """The value at each height, in the shape of ``z``, cm."""
        return np.interp(z, self._z, self._value).astype(np.float32)


@dataclass(frozen=True)
class Anatomy:
    """The measures that differ from person to person.

    Attributes:
        female: Whether the chest has breasts.
        width: Scale of the chest across, around 1.
        depth: Scale of the chest from back to front, around 1.
        fat: Extra soft tissue on every side, cm.
        breath: Height of the diaphragm above full inspiration, cm.
        heart: Scale of the heart, around 1.
        rib_drop: Scale of the ribs' slope, around 1.
        bone: Mineral content, around 1.
        scoliosis: Sideways bend of the spine, cm.
        yaw: Rotation about the long axis, radians.
        vessels: Scale of the lung vessels, around 1.
        gas: Radius of the stomach's gas bubble, cm; 0 for none.
        shoulder: Height of the shoulders above average, cm.
        dome_gap: How much higher the right dome of the diaphragm is than the left, cm.
        supine: An AP film taken in bed: arms at the sides, shallow breath, big heart shadow.
    """

    female: bool
    width: float
    depth: float
    fat: float
    breath: float
    heart: float
    rib_drop: float
    bone: float
    scoliosis: float
    yaw: float
    vessels: float
    gas: float
    shoulder: float
    dome_gap: float
    supine: bool
    cage_width: Profile = field(repr=False)
    cage_front: Profile = field(repr=False)
    cage_back: Profile = field(repr=False)
    spine: Profile = field(repr=False)
    outline_left: Profile = field(repr=False)
    outline_right: Profile = field(repr=False)
    heart_middle: Profile = field(repr=False)
    heart_depth: Profile = field(repr=False)

    @classmethod
    def draw(cls, rng: np.random.Generator, *, supine: bool = False, heart: float = 1.0) -> Anatomy:
        """Draws a person.

        Args:
            rng: Source of the randomness; always drawn from in the same order.
            supine: Whether the film is taken AP in bed.
            heart: Extra enlargement of the heart.
        """
        female = draw_female(rng)
        width = rng.normal(0.955 if female else 1.03, 0.035)
        depth = rng.normal(0.95 if female else 1.02, 0.06)
        fat = float(np.clip(rng.gamma(2.2, 0.65), 0.3, 4.0))
        breath = float(np.clip(rng.normal(0.5, 0.7), -0.6, 2.2)) + (1.8 if supine else 0.0)
        size = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.16)) * heart * (1.1 if supine else 1.0)
        broad = float(np.clip(rng.normal(1.0, 0.12), 0.75, 1.35)) * (1.15 if supine else 1.0)
        return cls(
            female=female,
            width=width,
            depth=depth,
            fat=fat,
            breath=breath,
            heart=size,
            rib_drop=float(np.clip(rng.normal(1.0, 0.12), 0.7, 1.3)) * (0.85 if supine else 1.0),
            bone=float(np.clip(rng.normal(1.0, 0.12), 0.7, 1.3)),
            scoliosis=float(rng.normal(0, 0.25)),
            yaw=float(np.clip(rng.normal(0, 0.03), -0.08, 0.08)) * (2 if supine else 1),
            vessels=float(np.clip(rng.normal(1.0, 0.15), 0.7, 1.4)),
            gas=float(rng.uniform(1.2, 3.2)) if rng.random() < 0.75 else 0.0,
            shoulder=float(rng.normal(0, 0.8)) + (1.2 if supine else 0.0),
            dome_gap=float(rng.normal(1.1, 0.5)),
            supine=supine,
            cage_width=Profile(_CAGE_WIDTH, width),
            cage_front=Profile(_CAGE_FRONT, depth),
            cage_back=Profile(_CAGE_BACK, depth),
            spine=Profile(_SPINE_BODY, depth, smooth=2.0),
            outline_left=_outline(_OUTLINE_LEFT, size, broad, breath, rng),
            outline_right=_outline(_OUTLINE_RIGHT, size, broad, breath, rng),
            heart_middle=Profile(_HEART_MIDDLE, depth, shift=-0.4 * (size - 1)),
            heart_depth=Profile(_HEART_DEPTH, 0.5 * (size + depth)),
        )

    def vertebra_height(self, number: float) -> float:
        """Height of the centre of a thoracic vertebra (1 to 12; beyond for neck and loin), cm."""
        return 13.4 - 2.05 * (number - 1) - 0.03 * (number - 1) ** 2

    def spine_x(self, z: FloatArray | float) -> FloatArray:
        """Sideways position of the spine, cm."""
        return np.asarray(self.scoliosis * np.sin(np.asarray(z) * np.pi / 22), dtype=np.float32)

    def cage(self, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Half width, mid depth and half depth of the inside of the rib cage, cm."""
        front, back = self.cage_front(z), self.cage_back(z)
        return self.cage_width(z), (front + back) / 2, np.maximum((front - back) / 2, 0.01)


def _outline(
    knots: list[tuple[float, float]],
    heart: float,
    broad: float,
    breath: float,
    rng: np.random.Generator,
) -> Profile:
    """One border of the heart shadow: the heart below, the great vessels above, both scaled."""
    moved = []
    for z, x in knots:
        low = float(np.clip((2.0 - z) / 4.0, 0, 1))
        wide = x * (broad * (1 - low) + heart * low) * rng.normal(1, 0.018)
        moved.append((z + 0.5 * breath * low, wide))
    return Profile(moved, smooth=0.45)


def draw_female(rng: np.random.Generator) -> bool:
    """The first thing drawn of a person, on its own for those who need no more."""
    return bool(rng.random() < 0.5)
