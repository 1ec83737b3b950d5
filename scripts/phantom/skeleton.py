"""The bones of one imaginary chest, as tubes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from phantom.anatomy import Anatomy
from phantom.projection import FloatArray, Tube

# Rib by rib: how far it falls from spine to front end (cm), and where round the chest its bone
# ends (degrees from the side; 90 is the midline in front).
_RIB_DROP = (4.6, 6.2, 7.6, 8.6, 9.4, 10.0, 10.4, 10.6, 10.6, 10.8, 12.0, 13.0)
_RIB_END = (66, 67, 66, 64, 60, 55, 49, 42, 34, 24, -8, -38)
_UP, _FRONT, _NONE = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]), np.zeros(3)


def bones(
    anatomy: Anatomy, rng: np.random.Generator, *, lateral: bool, coarse: bool = False
) -> Iterator[Tube]:
    """Every bone that the film shows.

    Args:
        anatomy: The person.
        rng: Small irregularities, so that the sides differ.
        lateral: Whether the arms are raised, as for a lateral film.
        coarse: Whether the film is too small to show single vertebrae, shoulder blades and
            breastbone; leaving them out saves most of the time.

    Yields:
        Tubes in body coordinates.
    """
    for side in (-1, 1):
        yield from _ribs(anatomy, rng, side, lateral)
    yield from _rough_spine(anatomy, lateral) if coarse else _spine(anatomy, rng, lateral)
    if not coarse:
        yield from _sternum(anatomy)
    for side in (-1, 1):
        yield _clavicle(anatomy, rng, side, lateral)
        if not coarse:
            yield from _scapula(anatomy, rng, side, lateral)
        yield from _humerus(anatomy, rng, side, lateral)


def _ribs(anatomy: Anatomy, rng: np.random.Generator, side: int, lateral: bool) -> Iterator[Tube]:
    """The twelve ribs of one side, following the rib cage down and round."""
    for number, (fall, end) in enumerate(zip(_RIB_DROP, _RIB_END, strict=True), start=1):
        first, last = np.deg2rad(-80.0), np.deg2rad(end + rng.normal(0, 2.5))
        angle = np.linspace(first, last, 90)
        part = (angle - first) / (np.deg2rad(66.0) - first)
        top = anatomy.vertebra_height(number) + 0.4 + rng.normal(0, 0.12)
        z = top - fall * anatomy.rib_drop * (
            part**1.45 - 0.1 * np.sin(np.pi * part * 2) * (part < 0.5)
        )
        z = z + rng.normal(0, 0.12) * np.sin(3 * angle + rng.uniform(0, 6))
        width, middle, depth = anatomy.cage(z)
        x = (width + 0.35) * np.cos(angle) ** 0.9
        y = middle + (depth + 0.35) * np.sin(angle)
        # The head of the rib runs from the vertebra to where it meets the cage.
        neck = np.array([1.6, float(anatomy.spine(top)) - 0.9, top - 0.2])
        path = np.stack([x, y, z], axis=1)
        head = neck + (path[0] - neck) * np.linspace(0, 1, 8)[:-1, None]
        path = np.concatenate([head, path])
        path[:, 0] = side * path[:, 0] + anatomy.spine_x(path[:, 2]) * np.exp(
            -((path[:, 0] / 6) ** 2)
        )
        outward = np.stack([path[:, 0], path[:, 1] - np.interp(path[:, 2], z[::-1], middle[::-1]),
                            np.zeros(len(path))], axis=1)  # fmt: skip
        along = np.linspace(0, 1, len(path))
        size = 0.86 + 0.14 * np.sin(np.pi * min(number, 9) / 9)
        tall = size * (
            0.46 + 0.26 * np.sin(np.pi * np.clip(along * 1.05, 0, 1)) ** 0.7 + 0.06 * along
        )
        thin = size * (0.42 - 0.07 * np.sin(np.pi * along))
        # The flared front part is thinner-walled than the back and shows less.
        density = np.interp(
            along, [0, 0.25, 0.55, 1], [0.4 if lateral else 1.0, 0.6 if lateral else 1.0, 1.0, 0.62]
        )
        closed = np.minimum(1, np.sqrt((1 - along) * 25 + 0.02))
        yield Tube(
            path,
            outward,
            thin * closed,
            tall * closed,
            cortex=0.075 * anatomy.bone,
            density=density,
        )


def _spine(anatomy: Anatomy, rng: np.random.Generator, lateral: bool) -> Iterator[Tube]:
    """Vertebral bodies with end plates, pedicles, transverse and spinous processes."""
    for number in range(-4, 16):
        z = anatomy.vertebra_height(number)
        size = 0.72 + 0.035 * np.clip(number, -2, 14)
        half = 0.5 * (anatomy.vertebra_height(number - 0.5) - anatomy.vertebra_height(number + 0.5))
        half *= 0.80
        slope = float(anatomy.spine(z + 1) - anatomy.spine(z - 1)) / 2
        axis = np.array([rng.normal(0, 0.015), slope, 1.0])
        axis /= np.linalg.norm(axis)
        centre = np.array([float(anatomy.spine_x(z)), float(anatomy.spine(z)), z])
        at = np.linspace(-1, 1, 15)
        waist = 1 - 0.11 * (1 - at**2)
        path = centre + half * at[:, None] * axis
        yield Tube(path, np.array([1.0, 0, 0]), 1.65 * size * waist, 1.4 * size * waist,
                   cortex=0.05 * anatomy.bone, density=0.9 if lateral else 0.38)  # fmt: skip
        for end in (-half, half):  # End plates: thin, slightly dished, so not a hairline.
            dish = centre + (end + np.linspace(-0.05, 0.05, 3)[:, None]) * axis
            yield Tube(dish, np.array([1.0, 0, 0]), 1.6 * size, 1.35 * size,
                       cortex=0.1 * anatomy.bone, density=0.5)  # fmt: skip
        backward = np.array([0.0, -1.0, -0.25 * (1 - slope)])
        for side in (-1, 1):
            root = centre + np.array([side * 1.05 * size, -1.0 * size, 0.3])
            pedicle = root + np.linspace(0, 1.4, 6)[:, None] * backward
            yield Tube(
                pedicle, _UP, 0.5 * size, 0.36 * size, cortex=0.07 * anatomy.bone, density=0.5
            )
            if number >= 1:
                tip = root + np.array([side * 2.1, -2.6, 0.5])
                limb = root + (tip - root) * np.linspace(0.3, 1, 8)[:, None]
                yield Tube(
                    limb,
                    _UP,
                    0.45 * _rounded(8),
                    0.35 * _rounded(8),
                    cortex=0.06,
                    density=0.2 if lateral else 0.5,
                )
        start = centre + np.array([rng.normal(0, 0.06), -3.2 * size, 0.1])
        spinous = start + np.linspace(0, 2.6, 16)[:, None] * np.array([0.0, -0.7, -0.7])
        round_ = _rounded(16)
        yield Tube(spinous, _UP, 0.45 * round_, 0.34 * round_, cortex=0.06, density=0.4)


def _rough_spine(anatomy: Anatomy, lateral: bool) -> Iterator[Tube]:
    """The spine as one column."""
    z = np.linspace(22, -24, 60)
    path = np.stack([anatomy.spine_x(z), anatomy.spine(z), z], axis=1)
    size = np.interp(z, [-16, 18], [1.2, 0.65])
    yield Tube(
        path, np.array([1.0, 0, 0]), 1.6 * size, 1.4 * size, 0.06, density=1.0 if lateral else 0.45
    )


def _sternum(anatomy: Anatomy) -> Iterator[Tube]:
    """Manubrium and body of the sternum, flat against the front of the cage."""
    for top, bottom, wide in ((8.6, 4.4, 2.3), (4.1, -5.5, 1.5)):
        z = np.linspace(top, bottom, 20)
        path = np.stack([np.zeros(20), anatomy.cage_front(z) + 0.55, z], axis=1)
        path = _yawed(path, anatomy)
        half = wide * (1.1 - 0.25 * np.sin(np.linspace(0, np.pi, 20)))
        yield Tube(path, np.array([1.0, 0, 0]), half * _rounded(20), 0.45 * _rounded(20),
                   cortex=0.06 * anatomy.bone, density=0.8)  # fmt: skip


def _clavicle(anatomy: Anatomy, rng: np.random.Generator, side: int, lateral: bool) -> Tube:
    """One collar bone: an S from the manubrium to the shoulder."""
    lift = anatomy.shoulder + rng.normal(0, 0.25) + (1.0 if lateral else 0.0)
    at = np.linspace(0, 1, 40)
    front = float(anatomy.cage_front(8.5))
    x = 2.3 + 13.6 * anatomy.width * at
    y = front + 0.6 + 0.9 * np.sin(2 * np.pi * at) - 5.5 * at**1.4
    z = 8.4 + lift * at + 3.0 * at - 0.4 * np.sin(2 * np.pi * at) - 1.0 * at**3
    if lateral:
        x, y = x * (1 - 0.15 * at), y - 1.0 * at
    path = _yawed(np.stack([side * x, y, z], axis=1), anatomy)
    thick = 0.56 + 0.36 * np.exp(-((at / 0.1) ** 2)) + 0.18 * np.exp(-(((1 - at) / 0.15) ** 2))
    thick = thick * _rounded(40)
    return Tube(path, _UP, thick, 0.62 * _rounded(40), cortex=0.11 * anatomy.bone)


def _scapula(
    anatomy: Anatomy, rng: np.random.Generator, side: int, lateral: bool
) -> Iterator[Tube]:
    """One shoulder blade: a thin plate with thick borders, spine, acromion and coracoid."""
    lift = anatomy.shoulder + rng.normal(0, 0.3)
    out = (anatomy.width - 1) * 13 + (-1.4 if anatomy.supine else 0.2) + rng.normal(0, 0.3)
    glenoid = np.array([15.3 + out, -3.2, 8.2 + lift])
    angle = np.array([12.6 + out, -8.6, -4.2 + lift])
    corner = np.array([9.2 + out, -9.0, 8.8 + lift])
    acromion = np.array([17.0 + out, -3.4, 11.0 + lift])
    coracoid = np.array([14.0 + out, -0.4, 9.8 + lift])
    if lateral:  # Arms raised: the blade swings outward and forward.
        glenoid, acromion = glenoid + _by(-1.5, 1.0, 3.5), acromion + _by(-3.5, 0.5, 3.5)
        angle, coracoid = angle + _by(1.5, 2.5, 1.5), coracoid + _by(-1.0, 0.5, 3.0)
    mirror = np.array([side, 1, 1])
    cortex = 0.085 * anatomy.bone

    def limb(
        start: FloatArray, end: FloatArray, tall: float, flat: float, *, sag: FloatArray = _NONE
    ) -> Tube:
        at = np.linspace(0, 1, 24)[:, None]
        path = start + (end - start) * at + sag * np.sin(np.pi * at)
        upright = abs(end[2] - start[2]) > 2 * np.hypot(*(end - start)[:2])
        side_of_tube = _FRONT if upright else _UP
        round_ = _rounded(24)
        return Tube(path * mirror, side_of_tube, tall * round_, flat * round_, cortex=cortex)

    yield limb(glenoid + _by(-0.4, 0, -1.2), angle, 0.42, 0.36, sag=_by(-0.6, 0, 0))
    yield limb(corner, angle, 0.2, 0.2, sag=_by(-0.5, 0, 0))
    yield limb(corner, coracoid + _by(-1.2, -2.0, 0.0), 0.22, 0.2, sag=_by(0, 0, -0.3))
    yield limb(corner + _by(0.8, -0.6, -1.8), acromion, 0.5, 0.26, sag=_by(0, -0.8, 0.1))
    yield limb(glenoid + _by(-0.3, 0, 1.6), glenoid + _by(-0.3, 0, -1.7), 0.8, 0.4)
    yield limb(coracoid + _by(-1.0, -2.2, -0.2), coracoid, 0.55, 0.5, sag=_by(-0.3, 0, 0.4))
    # The blade between the borders: wide, thin, flat tube from the top edge to the angle.
    at = np.linspace(0.03, 0.97, 40)[:, None]
    top, low = (corner + glenoid) / 2, angle
    path = (top + (low - top) * at) * mirror
    across = (glenoid - corner) * mirror
    half = np.linalg.norm(glenoid - corner) / 2 * (1 - at[:, 0]) ** 0.9
    yield Tube(path, across, half + 0.05, 0.1, cortex=0.05 * anatomy.bone)


def _humerus(
    anatomy: Anatomy, rng: np.random.Generator, side: int, lateral: bool
) -> Iterator[Tube]:
    """Head and shaft of one upper arm bone."""
    lift, out = anatomy.shoulder, (anatomy.width - 1) * 13 + (-0.8 if anatomy.supine else 0.2)
    mirror = np.array([side, 1, 1])
    head = np.array([18.3 + out, -2.6, 8.2 + lift])
    elbow = np.array([23.5 + out + rng.normal(0, 0.8), -2.0, -20.0])
    if lateral:
        head = head + _by(-2.0, 1.0, 3.8)
        elbow = np.array([13.0, 9.0 + rng.normal(0, 2), 40.0])
    axis = elbow - head
    at = np.linspace(0.02, 1, 60)
    path = (head + axis * at[:, None]) * mirror
    shaft = (1.15 + 0.85 * np.exp(-((at / 0.08) ** 2))) * np.minimum(1, np.sqrt(30 * (at - 0.019)))
    yield Tube(path, np.array([1.0, 0, 0]), shaft, shaft, cortex=0.22 * anatomy.bone)
    polar = np.linspace(0.03, np.pi - 0.03, 40)
    ball = (head + _by(-0.7, 0, 0.5)) * mirror
    centre = ball + 2.3 * np.cos(polar)[:, None] * _UP
    round_ = 2.3 * np.sin(polar)
    yield Tube(centre, np.array([1.0, 0, 0]), round_, round_, cortex=0.1 * anatomy.bone)


def _by(x: float, y: float, z: float) -> FloatArray:
    """A step in body coordinates, cm."""
    return np.array([x, y, z])


def _rounded(count: int) -> FloatArray:
    """Factors along a bone that close both of its ends: float (count,), 0..1."""
    return np.sqrt(np.maximum(1 - np.abs(np.linspace(-1, 1, count)) ** 6, 0.02))


def _yawed(path: FloatArray, anatomy: Anatomy) -> FloatArray:
    """The path turned about the long axis through the spine, as a patient stands askew."""
    pivot = float(anatomy.spine(5.0))
    turned = path.copy()
    turned[:, 0] = path[:, 0] + np.sin(anatomy.yaw) * (path[:, 1] - pivot)
    turned[:, 1] = (
        pivot + np.cos(anatomy.yaw) * (path[:, 1] - pivot) - np.sin(anatomy.yaw) * path[:, 0]
    )
    return turned
