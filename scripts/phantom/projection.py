"""Parallel projection of simple solids onto an image plane, in centimetres.

Two ways to draw are enough for a thorax. Organs are described by the interval of depths in
which a ray through each pixel is inside them, so thicknesses and overlaps are exact and edges
are sharp at any size. Bones and vessels are tubes: their surfaces are sampled finely and the
samples are added into the image, which gives the bright cortical rim of a hollow bone without
tracing a single ray.

Axes: x to the patient's left, y to the front, z to the head. A frontal view looks along y and
shows x across; a lateral one looks along x and shows y across.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Interval = tuple[FloatArray, FloatArray]

# Spacing of surface samples, in working pixels: what bilinear deposits and a slight blur hide.
_SAMPLE_STEP = 1.1


@dataclass(frozen=True)
class Frame:
    """The image plane: which pixels see which part of the body.

    Attributes:
        rows: Image height in pixels.
        columns: Image width in pixels.
        scale: Pixels per centimetre.
        centre: Position (across, up) of the image centre, in cm.
        lateral: True when the ray runs along x, False when it runs along y.
    """

    rows: int
    columns: int
    scale: float
    centre: tuple[float, float]
    lateral: bool

    @property
    def across(self) -> FloatArray:
        """Horizontal coordinate of each column, float32 (1, columns), cm."""
        offsets = np.arange(self.columns, dtype=np.float32) - (self.columns - 1) / 2
        return (self.centre[0] + offsets / self.scale)[None, :].astype(np.float32)

    @property
    def up(self) -> FloatArray:
        """Height of each row, float32 (rows, 1), cm."""
        offsets = (self.rows - 1) / 2 - np.arange(self.rows, dtype=np.float32)
        return (self.centre[1] + offsets / self.scale)[:, None].astype(np.float32)

    @property
    def axes(self) -> tuple[int, int]:
        """Indices into (x, y, z) of the across axis and of the ray's axis."""
        return (1, 0) if self.lateral else (0, 1)

    def deposit(self, across: FloatArray, up: FloatArray, weights: FloatArray) -> FloatArray:
        """Adds weighted points into an image, sharing each among its four pixels.

        Args:
            across: float32, the points' horizontal positions, cm; any shape.
            up: float32, their heights, cm; same shape.
            weights: float32, same shape; areas or volumes in cm² or cm³, so that the result is a
                density per unit of image area.

        Returns:
            float32 (rows, columns): the sum of the weights per cm².
        """
        wide = self.columns + 3  # A border takes what falls outside: cheaper than sorting it out.
        scale = np.float32(self.scale)
        column = across.ravel() * scale
        column += np.float32((self.columns - 1) / 2 - self.centre[0] * self.scale + 1)
        row = up.ravel() * -scale
        row += np.float32((self.rows - 1) / 2 + self.centre[1] * self.scale + 1)
        np.clip(column, 0, self.columns + 1, out=column)
        np.clip(row, 0, self.rows + 1, out=row)
        left, top = column.astype(np.int32), row.astype(np.int32)
        column -= left
        row -= top
        index = (top * wide + left).astype(np.intp)
        below = row * weights.ravel()
        above = weights.ravel() - below
        image = np.zeros((self.rows + 3) * wide)
        for half, step in ((above, 0), (below, wide)):
            right = column * half
            for share, move in ((half - right, step), (right, step + 1)):
                image[move:] += np.bincount(index, share, image.size)[: image.size - move]
        image *= self.scale**2
        return image.reshape(-1, wide)[1 : self.rows + 1, 1 : self.columns + 1].astype(np.float32)


Samples = tuple[FloatArray, FloatArray, FloatArray]  # Across, up and weight of each point.


@dataclass(frozen=True)
class Tube:
    """A bent tube of elliptical cross-section.

    Attributes:
        path: float (n, 3), the centre line, cm.
        side: float (n, 3) or (3,), roughly the direction of the first radius; it is made
            perpendicular to the path.
        radius: First radius, along ``side``; a number or float (n,), cm.
        other: Second radius, perpendicular to both; a number or float (n,), cm.
        cortex: Thickness of the dense shell, cm.
        density: Scales the attenuation; a number or float (n,).
    """

    path: FloatArray
    side: FloatArray
    radius: float | FloatArray
    other: float | FloatArray
    cortex: float = 0.1
    density: float | FloatArray = 1.0

    def samples(self, frame: Frame, marrow: float, shell: float) -> Samples:
        """Samples the surface so that depositing gives the tube's attenuation.

        A surface sample of area dA with normal n contributes depth · n_ray · dA to the solid
        thickness (the divergence theorem, with depths taken from the centre line so that errors
        stay small) and cortex · dA to the shell's.

        Args:
            frame: Where it will be drawn; sets how dense the samples are.
            marrow: Attenuation of the inside, per cm.
            shell: Attenuation of the cortex, per cm.

        Returns:
            Across, up and weight, each float32 (points along, points around).
        """
        path, side, radius, other, density = self._resampled(frame.scale)
        tangent, length = _slopes(path)
        side = _unit(side - tangent * np.sum(side * tangent, axis=1, keepdims=True))
        third = np.cross(tangent, side)
        widest = max(radius.max(), other.max())
        count = max(12, int(2 * np.pi * widest * frame.scale / _SAMPLE_STEP))
        angle = (np.arange(count) + 0.5) * (2 * np.pi / count)
        circle = np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)

        def around(first: FloatArray, second: FloatArray) -> FloatArray:
            """Both radii's parts, first · cos + second · sin, for every place and angle."""
            return np.stack([first, second], axis=1).astype(np.float32) @ circle

        def offset(axis: int) -> FloatArray:
            return around(radius * side[:, axis], other * third[:, axis])

        across_axis, ray = frame.axes
        area = (length * density * (2 * np.pi / count)).astype(np.float32)[:, None]
        normal = around(other * side[:, ray], radius * third[:, ray])
        squares = np.stack([other**2, radius**2], axis=1).astype(np.float32)
        speed = np.sqrt(squares @ circle**2)
        weights = area * (marrow * offset(ray) * normal + shell * self.cortex * speed)
        across = path[:, across_axis, None].astype(np.float32) + offset(across_axis)
        up = path[:, 2, None].astype(np.float32) + offset(2)
        return across, up, weights

    def _resampled(self, scale: float) -> tuple[FloatArray, ...]:
        """Path, side, both radii and density at even steps of about a working pixel."""
        n = len(self.path)
        knots = np.empty((n, 9))
        knots[:, :3], knots[:, 3:6] = self.path, self.side
        knots[:, 6], knots[:, 7], knots[:, 8] = self.radius, self.other, self.density
        step = np.diff(knots[:, :3], axis=0)
        travelled = np.zeros(n)
        np.cumsum(np.sqrt(np.einsum("ij,ij->i", step, step)), out=travelled[1:])
        count = max(6, int(travelled[-1] * scale / _SAMPLE_STEP))
        place = np.interp(np.linspace(0, travelled[-1], count), travelled, np.arange(n))
        before = np.minimum(place.astype(np.intp), n - 2)
        share = (place - before)[:, None]
        new = knots[before] * (1 - share) + knots[before + 1] * share
        return new[:, :3], new[:, 3:6], new[:, 6], new[:, 7], new[:, 8]


def ribbon(frame: Frame, path: FloatArray, radius: FloatArray, lanes: int) -> Samples:
    """Samples many round tubes at once, as their projected thickness.

    Cheaper than a surface for the thousands of thin vessels, whose walls do not show.

    Args:
        frame: Where they will be drawn.
        path: float (tubes, n, 3), cm.
        radius: float (tubes, n), cm.
        lanes: Samples across each tube.

    Returns:
        Across, up and volume (cm³), each float32 (tubes, n, lanes).
    """
    step = np.gradient(path, axis=1)
    length = np.linalg.norm(step, axis=2)
    rightward, upward = step[..., frame.axes[0]], step[..., 2]
    flat = np.maximum(np.hypot(rightward, upward), 1e-6)
    # A tube seen end-on is spread over its cross-section, not piled into one bright point.
    length = length * np.clip(2.5 * flat / np.maximum(length, 1e-6), 0, 1)
    at = ((np.arange(lanes) + 0.5) / lanes * 2 - 1).astype(np.float32)
    chord = np.sqrt(1 - at**2)
    chord /= chord.sum()

    def lane(centre: FloatArray, sideways: FloatArray) -> FloatArray:
        slope = (sideways / flat * radius).astype(np.float32)
        return centre.astype(np.float32)[..., None] + slope[..., None] * at

    across = lane(path[..., frame.axes[0]], -upward)
    up = lane(path[..., 2], rightward)
    volume = (np.pi * radius**2 * length).astype(np.float32)
    return across, up, volume[..., None] * chord


def ellipsoid(
    frame: Frame, centre: Sequence[float], radii: Sequence[float], turn: FloatArray | None = None
) -> Interval:
    """Depths at which each ray enters and leaves an ellipsoid.

    Args:
        frame: The image plane.
        centre: (x, y, z), cm.
        radii: Along the ellipsoid's own axes, cm.
        turn: float (3, 3) whose rows are those axes; none for upright.

    Returns:
        Two float32 (rows, columns) arrays; equal where the ray misses.
    """
    axes = np.eye(3) if turn is None else np.asarray(turn)
    form = axes.T @ np.diag(1 / np.asarray(radii, dtype=float) ** 2) @ axes
    h, d = frame.axes
    across, up = frame.across - centre[h], frame.up - centre[2]
    half_linear = (form[d, h] * across + form[d, 2] * up) / form[d, d]
    constant = form[h, h] * across**2 + 2 * form[h, 2] * across * up + form[2, 2] * up**2 - 1
    root = np.sqrt(np.maximum(half_linear**2 - constant / form[d, d], 0))
    middle = centre[d] - half_linear
    return middle - root, middle + root


def union_length(intervals: Sequence[Interval], within: Interval) -> FloatArray:
    """Total depth covered by any of the intervals, inside another one.

    With starts and ends each sorted on their own, a gap lies wherever a start exceeds the end
    before it; no pairing is needed, so a sorting network over whole images does it.

    Args:
        intervals: Pairs of float (rows, columns) arrays, cm.
        within: The interval outside which nothing counts.

    Returns:
        float32 (rows, columns), cm.
    """
    low, high = within
    starts = [np.clip(start, low, high) for start, _ in intervals]
    ends = [np.clip(end, low, high) for _, end in intervals]
    # An interval that is empty, or wholly outside, has become a point: it moves no boundary
    # that is not already there, but it must not open the span, so it is folded onto `low`.
    for start, end in zip(starts, ends, strict=True):
        empty = end <= start
        np.copyto(start, low, where=empty)
        np.copyto(end, low, where=empty)
    for values in (starts, ends):
        for last in range(len(values) - 1, 0, -1):
            for k in range(last):
                smaller = np.minimum(values[k], values[k + 1])
                np.maximum(values[k], values[k + 1], out=values[k + 1])
                values[k] = smaller
    total = ends[-1] - starts[0]
    for start, end in zip(starts[1:], ends[:-1], strict=True):
        total = total - np.maximum(start - end, 0)
    return np.asarray(total, dtype=np.float32)


def _slopes(path: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit tangents (n, 3) and the length that each point of a path (n, 3) stands for."""
    slope = np.empty_like(path)
    slope[1:-1] = (path[2:] - path[:-2]) / 2
    slope[0], slope[-1] = path[1] - path[0], path[-1] - path[-2]
    length = np.sqrt(np.einsum("ij,ij->i", slope, slope))
    return slope / np.maximum(length, 1e-9)[:, None], length


def _unit(vectors: FloatArray) -> FloatArray:
    """The same directions with length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
