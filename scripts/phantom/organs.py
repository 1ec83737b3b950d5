"""Soft tissue, lungs and their vessels: thicknesses along each ray."""

from __future__ import annotations

import numpy as np

from phantom.anatomy import Anatomy, Profile
from phantom.projection import FloatArray, Frame, Interval, ellipsoid, ribbon, union_length

_NEVER = np.float32(1e3)


def body_thickness(frame: Frame, anatomy: Anatomy) -> FloatArray:
    """How much of each ray runs inside the skin: float32 (rows, columns), cm."""
    z = frame.up
    fat, lift, w = anatomy.fat, anatomy.shoulder, anatomy.width
    wide = Profile([(26, 6.4), (19, 6.2), (16.8, 7.4), (15.2, 9.8), (13.6, 13.4), (12, 15.6),
                    (9, 16.6), (2, 16.9), (-2, 17.0), (-8, 17.0), (-14, 16.4), (-22, 16.0)],
                   w, shift=0.6 * fat - 0.4)  # fmt: skip
    front = Profile([(26, 4.0), (18, 3.0), (14, 3.0), (11, 4.0), (8, 5.6), (4, 7.4), (-3, 9.6),
                     (-9, 10.7), (-16, 11.0 + 0.5 * fat), (-22, 10.8 + fat)],
                    anatomy.depth, shift=0.45 * fat)  # fmt: skip
    back = Profile([(26, -9.4), (18, -9.9), (13, -11.4), (7, -12.4), (0, -12.9), (-7, -12.6),
                    (-16, -11.4), (-22, -11.2)], anatomy.depth, shift=-0.3 * fat)  # fmt: skip
    far = np.full((frame.rows, frame.columns), 60, dtype=np.float32)
    torso = _section(frame, wide(z), (front(z) + back(z)) / 2, (front(z) - back(z)) / 2, 3.6)
    parts = [torso]
    out = (w - 1) * 13 + (-0.8 if anatomy.supine else 0.2)
    for side in (-1, 1):
        if frame.lateral:
            parts.append(ellipsoid(frame, (side * 13.5, 0.0, 12.5), (5.0, 6.0, 5.0)))
            parts.append(_arm(frame, (side * 12.5, 3.5, 17.0), fat))
        else:
            joint = (side * (15.4 + out), -3.0, 6.8 + lift)
            parts.append(ellipsoid(frame, joint, (7.2, 7.4, 6.6)))
            parts.append(_arm(frame, (side * (20.3 + out), -2.4, 4.0 + lift), fat))
    body = union_length(parts, (-far, far))
    if not anatomy.female:
        return body
    size = 0.8 + 0.2 * fat
    for side in (-1, 1):
        # A tilted egg on the chest wall; it fades upwards, so that only its lower edge shows.
        lean = np.array([[1, 0, 0], [0, 0.87, 0.5], [0, -0.5, 0.87]])
        centre = (side * 8.4 * w, float(front(-4)) - 0.6, -4.2 - 1.1 * size)
        parts.append(ellipsoid(frame, centre, (6.0, 2.4 * size, 5.6 + size), lean))
    fade = np.clip((3.0 - z) / 9.0, 0, 1) ** 1.5
    return body + fade * (union_length(parts, (-far, far)) - body)


def lung_thickness(frame: Frame, anatomy: Anatomy) -> FloatArray:
    """How much of each ray runs through lung: float32 (rows, columns), cm."""
    width, middle, depth = anatomy.cage(frame.up)
    inside = _section(frame, width - 0.15, middle, depth - 0.15, 2.4)
    solid = union_length([*mediastinum(frame, anatomy), *_diaphragm(frame, anatomy)], inside)
    return np.maximum((inside[1] - inside[0]) - solid, 0)


def mediastinum(frame: Frame, anatomy: Anatomy) -> list[Interval]:
    """Heart, great vessels, spine and the tissue between the lungs, as intervals of depth."""
    z = frame.up
    right, left = anatomy.outline_right(z), anatomy.outline_left(z)
    back, tilt = anatomy.spine(z), anatomy.spine_x(z)
    _, middle, depth = anatomy.cage(z)
    # A lateral film shows the heart less sharply; a little more of it makes up for that.
    wide = (right + left) / (1.5 if frame.lateral else 2)
    shift = (left - right) / 2 + 0.4 * tilt
    heart = _section(frame, wide, anatomy.heart_middle(z), anatomy.heart_depth(z), 2.6, shift=shift)
    # Behind the heart: gullet, spine and the aorta, whose left edge runs down beside the spine.
    rear = _section(
        frame, np.full_like(z, 2.1), middle - 0.5 * depth, depth * 0.4, 1.4, shift=0.5 * tilt
    )
    spine = _section(frame, np.full_like(z, 2.4), back - 1.0, np.full_like(z, 1.9), 1.7, shift=tilt)
    size = np.clip((6.2 - z) / 1.5, 0.01, 1) ** 0.5
    beside = np.interp(z, [-14, -5, 3, 6], [0.7, 1.6, 2.3, 2.4]).astype(np.float32)
    aorta = _section(frame, 1.25 * size, back + 2.2, 1.25 * size, 2.0, shift=beside)
    return [heart, rear, spine, aorta]


# How fast each dome falls from its top: drop = a·d² + b·d⁴ at a distance d (cm) outward, inward,
# to the back and to the front. The fourth power keeps the dome round and the edges steep.
_OUTER, _INNER, _BACKWARD, _FORWARD = (
    (0.040, 0.0013),
    (0.022, 0.0003),
    (0.030, 0.0003),
    (0.030, 0.0002),
)
_DOME_Y = 1.0


def _domes(anatomy: Anatomy) -> list[tuple[float, float]]:
    """Across position and height of the tops of the right and the left dome, cm."""
    top = -8.0 + anatomy.breath
    return [(-6.4 * anatomy.width, top), (6.9 * anatomy.width, top - anatomy.dome_gap)]


def _diaphragm(frame: Frame, anatomy: Anatomy) -> list[Interval]:
    """What lies below the two domes, as intervals of depth."""
    intervals = []
    for centre, top in _domes(anatomy):
        across_x = (_OUTER, _INNER) if centre < 0 else (_INNER, _OUTER)
        across_y = (_BACKWARD, _FORWARD)
        if frame.lateral:
            offset, ray_centre, falls, ray = frame.across - _DOME_Y, centre, across_y, across_x
        else:
            offset, ray_centre, falls, ray = frame.across - centre, _DOME_Y, across_x, across_y
        a, b = (np.where(offset < 0, falls[0][k], falls[1][k]) for k in (0, 1))
        left = top - frame.up - a * offset**2 - b * offset**4
        room = np.maximum(left, 0)
        reach = [np.sqrt((np.sqrt(a * a + 4 * b * room) - a) / (2 * b)) for a, b in ray]
        start = np.where(left > 0, ray_centre - reach[0], _NEVER)
        end = np.where(left > 0, ray_centre + reach[1], _NEVER)
        intervals.append((start.astype(np.float32), end.astype(np.float32)))
    return intervals


def vessels(frame: Frame, anatomy: Anatomy, rng: np.random.Generator) -> FloatArray:
    """Thickness of the lung vessels: float32 (rows, columns), cm.

    Trees grow from each hilum by forking; twigs that leave the chest are dropped.
    """
    total = np.zeros((frame.rows, frame.columns), dtype=np.float32)
    start, heading, radius = _hila(anatomy, rng)
    thinnest = max(0.034, 0.5 / frame.scale)
    while len(start):
        length = np.clip(2.0 + 5.0 * radius, 0.8, 4.5) * rng.uniform(0.5, 1.25, len(start))
        steps = max(4, int(length.max() * frame.scale / 0.8))
        at = np.linspace(0, 1, steps)[None, :, None]
        bend = rng.normal(0, 0.22, (len(start), 3))
        wave = rng.normal(0, 0.045, (len(start), 3))
        path = (
            start[:, None]
            + length[:, None, None] * (heading[:, None] * at + bend[:, None] * at**2 / 2)
            + wave[:, None] * np.sin(2 * np.pi * at)
        )
        width = radius[:, None] * (1 - 0.18 * at[..., 0])
        lanes = int(np.clip(2.5 * radius.max() * frame.scale, 2, 24))
        across, up, volume = ribbon(frame, path, width, lanes)
        total += frame.deposit(across, up, volume * _in_lung(anatomy, path)[:, :, None])
        tip, onward = path[:, -1], heading + bend
        alive = (_in_lung(anatomy, tip) > 0) & (radius > thinnest)
        tip, onward, radius = tip[alive], onward[alive], radius[alive]
        onward /= np.maximum(np.linalg.norm(onward, axis=1, keepdims=True), 1e-6)
        swing = rng.normal(0, 1, onward.shape)
        swing -= onward * np.sum(swing * onward, axis=1, keepdims=True)
        swing /= np.maximum(np.linalg.norm(swing, axis=1, keepdims=True), 1e-6)
        open_ = rng.uniform(0.25, 0.7, (len(tip), 1))
        first, second = onward + 0.4 * open_ * swing, onward - open_ * swing
        heading = np.concatenate([first, second])
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        start = np.concatenate([tip, tip])
        share = rng.uniform(0.58, 0.78, len(tip))
        radius = np.concatenate([radius * 0.88, radius * share])
    return total


def _hila(anatomy: Anatomy, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where the trees start, which way they head, and how thick they are."""
    start, heading, radius = [], [], []
    for side, height in ((-1, -0.3), (1, 0.8)):
        # The two great branches: a short one up, the descending artery down.
        for (dx, dz), thick, count in (((0.75, 0.75), 0.40, 9), ((0.6, -0.8), 0.46, 13)):
            for _ in range(count):
                go = np.array(
                    [
                        side * (dx + rng.normal(0, 0.45)),
                        rng.normal(0, 0.75),
                        dz + rng.normal(0, 0.5),
                    ]
                )
                go[0] = side * max(side * go[0], 0.15)
                start.append([side * (3.0 + rng.normal(0, 0.25)), -2.6 + rng.normal(0, 0.6),
                              height + 0.5 * dz + rng.normal(0, 0.45)])  # fmt: skip
                heading.append(go / np.linalg.norm(go))
                radius.append(thick * rng.uniform(0.45, 0.95) * anatomy.vessels)
        start.append([side * 3.1, -2.4, height + 0.4])
        heading.append(np.array([side * 0.35, -0.25, -0.9]))
        radius.append(0.46)
    return np.array(start), np.array(heading), np.array(radius)


def _in_lung(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """Whether each point (..., 3) lies inside the rib cage and above the diaphragm."""
    x, y, z = np.moveaxis(points, -1, 0)
    width, middle, depth = anatomy.cage(z)
    in_cage = (np.abs(x) / np.maximum(width - 0.7, 0.01)) ** 2.25 + (
        np.abs(y - middle) / np.maximum(depth - 0.7, 0.01)
    ) ** 2.25 < 1
    (right, right_top), (left, left_top) = _domes(anatomy)
    offset = x - np.where(x < 0, right, left)
    outward, backward = (offset < 0) == (x < 0), y < _DOME_Y
    drop = np.zeros_like(x)
    for away, there, back_there in (
        (offset, outward, (_OUTER, _INNER)),
        (y - _DOME_Y, backward, (_BACKWARD, _FORWARD)),
    ):
        a, b = (np.where(there, back_there[0][k], back_there[1][k]) for k in (0, 1))
        drop += a * away**2 + b * away**4
    floor = np.where(x < 0, right_top, left_top) - drop
    return in_cage & (z > floor + 0.3) & (np.abs(x) > 1.5)


def airways(frame: Frame, anatomy: Anatomy) -> FloatArray:
    """Thickness of air in the trachea and main bronchi: float32 (rows, columns), cm."""
    back = float(anatomy.spine(5))
    carina = np.array([-0.2, back + 3.4, 4.0])
    total = np.zeros((frame.rows, frame.columns), dtype=np.float32)
    for start, end, bend, wide in (
        ([0.0, back + 6.3, 24.0], carina, [-0.25, 0.6, 0.0], 0.86),
        (carina, [-4.0, back + 2.8, 0.6], [0.0, 0.0, -0.25], 0.66),
        (carina, [4.9, back + 2.6, 0.5], [0.0, 0.0, 0.15], 0.58),
    ):
        span = np.asarray(end) - np.asarray(start)
        steps = max(8, int(np.linalg.norm(span) * frame.scale / 0.7))
        at = np.linspace(0, 1, steps)[:, None]
        path = np.asarray(start) + span * at + np.asarray(bend) * 4 * at * (1 - at)
        path[:, 0] += anatomy.spine_x(path[:, 2]) * 0.6
        lanes = max(5, int(2.6 * wide * frame.scale))
        radius = np.full((1, steps), wide) * (1 - 0.12 * at[:, 0])
        across, up, volume = ribbon(frame, path[None], radius, lanes)
        # The bronchi fade where they branch; the windpipe does not.
        fading = 1 - 0.75 * at[:, :1] * (wide < 0.8)
        total += frame.deposit(across, up, (volume * fading).astype(np.float32))
    return total


def stomach_gas(frame: Frame, anatomy: Anatomy, rng: np.random.Generator) -> FloatArray:
    """Thickness of gas below the left dome, flat at the bottom when upright: float32, cm."""
    size = anatomy.gas
    total = np.zeros((frame.rows, frame.columns), dtype=np.float32)
    if size == 0:
        return total
    top = -9.1 + anatomy.breath
    centre = (6.0 + rng.normal(0, 0.8), 1.0, top - 0.7 - 0.62 * size)
    start, end = ellipsoid(frame, centre, (1.35 * size, 1.2 * size, 0.62 * size))
    gas = end - start
    if not anatomy.supine:
        level = centre[2] - 0.62 * size * rng.uniform(0.1, 0.6)
        gas = gas * np.clip((frame.up - level) * frame.scale / 2 + 0.5, 0, 1)
    total += 0.8 * gas
    for _ in range(int(rng.integers(0, 6))):  # Pockets in the bowel.
        spot = (rng.uniform(3, 12), 2.0, rng.uniform(-20, top - 4.5))
        start, end = ellipsoid(frame, spot, tuple(rng.uniform(0.6, 1.8, 3)))
        total += 0.45 * (end - start)
    return total


def _section(
    frame: Frame,
    width: FloatArray,
    middle: FloatArray,
    depth: FloatArray,
    power: float,
    *,
    shift: FloatArray | float = 0.0,
) -> Interval:
    """The interval inside a solid whose level cuts are superellipses.

    Args:
        frame: The image plane.
        width: Half extent along x at each row, (rows, 1), cm.
        middle: Centre along y at each row.
        depth: Half extent along y at each row.
        power: The superellipse's exponent.
        shift: Centre along x at each row.
    """
    across = (frame.across - middle) / depth if frame.lateral else (frame.across - shift) / width
    room = np.maximum(1 - np.abs(across) ** power, 0) ** (1 / power)
    centre, half = (shift, width) if frame.lateral else (middle, depth)
    reach = (half * room).astype(np.float32)
    return (centre - reach).astype(np.float32), (centre + reach).astype(np.float32)


def _arm(frame: Frame, joint: tuple[float, float, float], fat: float) -> Interval:
    """An upper arm: hanging beside the chest on a frontal film, raised on a lateral one."""
    z = frame.up - joint[2]
    side = 1 if joint[0] > 0 else -1
    lean = (0.0, 0.32) if frame.lateral else (-0.16 * side, 0.0)
    room = (z + 4.0) / 7.0 if frame.lateral else (7.0 - z) / 6.0
    size = np.sqrt(np.clip(room, 1e-4, 1))
    wide, middle, deep = (4.4 + 0.3 * fat) * size, joint[1] + lean[1] * z, 5.0 * size
    return _section(frame, wide, middle, deep, 2.0, shift=joint[0] + lean[0] * z)
