"""From attenuation to a finished film: scatter, tone, collimation, marker and noise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from phantom.projection import FloatArray, Frame

# How much of the broad contrast between lung and abdomen a radiology workstation leaves, and how
# far it lifts what is finer than about 1.6 cm: the "multi-frequency" look of digital films.
_BROAD, _FINE, _FINE_ABOVE_CM = 0.74, 1.12, 1.6
_SCATTER, _SCATTER_CM = 0.12, 4.0
# Relative noise behind no patient at all, for detector pixels of 0.15 mm.
_NOISE, _NOISE_PIXELS_PER_CM = 0.0026, 67.0
# Strokes of the marker letters, in letter heights from the lower left corner.
_BOW = [(0, 1), (0.3, 1), (0.5, 0.93), (0.57, 0.77), (0.5, 0.6), (0.3, 0.52), (0, 0.52)]
_LETTERS: dict[str, list[Any]] = {
    "L": [[(0, 1), (0, 0), (0.55, 0)]],
    "R": [[(0, 0), (0, 1)], _BOW, [(0.27, 0.52), (0.6, 0)]],
}


def finish(
    attenuation: FloatArray,
    lung: FloatArray,
    frame: Frame,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Develops the film.

    Args:
        attenuation: Along each ray, float (rows, columns) of the working frame.
        lung: Lung thickness along each ray in cm, same shape; sets the exposure.
        frame: The working frame.
        size: Rows and columns of the film.
        rng: Chooses contrast, collimation and marker, then the noise.

    Returns:
        float32 of ``size`` in 0..1, bright where dense.
    """
    attenuation = np.maximum(attenuation, 0)
    tone = _tone(attenuation, lung, frame, rng)
    tone = _mark(tone, frame, rng)
    tone = _collimate(tone, frame, rng)
    rows, columns = size
    film = cv2.resize(tone, (columns, rows), interpolation=_interpolation(frame, size))
    finest = frame.scale * rows / frame.rows
    spread = _NOISE * finest / _NOISE_PIXELS_PER_CM * np.exp(0.5 * np.minimum(attenuation, 4))
    # Noise is born in the exposure, so the tone curve's slope, 4 v (1 - v), scales it.
    spread *= 2.2 * np.clip(4 * tone * (1 - tone), 0.05, 1)
    spread = cv2.resize(spread.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR)
    grain = rng.standard_normal((rows, columns), dtype=np.float32)
    if min(rows, columns) > 256:
        grain = cv2.GaussianBlur(grain, (3, 3), 0.6) * 1.8
    film += grain * spread
    return np.clip(film, 0, 1, out=film)


def _interpolation(frame: Frame, size: tuple[int, int]) -> int:
    return cv2.INTER_CUBIC if size[0] >= frame.rows else cv2.INTER_AREA


def _tone(
    attenuation: FloatArray, lung: FloatArray, frame: Frame, rng: np.random.Generator
) -> FloatArray:
    """Grey values: an S-shaped curve over the log exposure, broad contrast held back."""
    primary = np.exp(-attenuation)
    # Scatter comes from the patient, so the open beam beside him is left out.
    scatter = cv2.GaussianBlur(np.minimum(primary, 0.2), (0, 0), _SCATTER_CM * frame.scale)
    log = -np.log(primary + _SCATTER * scatter)
    broad = cv2.GaussianBlur(log, (0, 0), _FINE_ABOVE_CM * frame.scale)
    flat = _BROAD * broad + _FINE * (log - broad)
    aerated = lung > 0.6 * lung.max()
    dark = np.percentile(flat[aerated], 30) if aerated.any() else flat.min()
    bright = np.percentile(flat, 98)
    # The clip is for films of a few pixels, which may show nothing but air.
    level = np.clip((flat - dark) / max(float(bright - dark), 0.1), -9, 9)
    contrast, middle = rng.uniform(3.3, 4.2) - 0.5 * frame.lateral, rng.uniform(0.31, 0.42)
    tone = 1 / (1 + np.exp(-contrast * (level - middle)))
    # Where the beam meets nothing at all, the curve ends in plain black.
    return np.clip((tone - 0.035) / 0.94, 0, 1).astype(np.float32)


def _mark(tone: FloatArray, frame: Frame, rng: np.random.Generator) -> FloatArray:
    """A lead letter near an upper corner, as the technician puts it on the cassette."""
    letter, left = ("L", False) if rng.random() < 0.6 else ("R", True)
    if frame.lateral:
        left = bool(rng.random() < 0.5)
    height = rng.uniform(1.0, 1.6) * frame.scale
    x = rng.uniform(0.04, 0.09) * frame.columns
    origin = (
        x if left else frame.columns - x - height,
        rng.uniform(0.05, 0.16) * frame.rows + height,
    )
    if rng.random() < 0.15 or height < 4:
        return tone
    lead = np.zeros(tone.shape, dtype=np.uint8)
    for stroke in _LETTERS[letter]:
        points = np.asarray(stroke) * (height, -height) + origin
        cv2.polylines(
            lead, [np.rint(points * 16).astype(np.int32)], False, 255, max(1, round(height / 7)),
            cv2.LINE_AA, 4,
        )  # fmt: skip
    return tone + (0.97 - tone) * (lead / np.float32(255))


def _collimate(tone: FloatArray, frame: Frame, rng: np.random.Generator) -> FloatArray:
    """Borders that the beam did not reach: pale and soft, or blacked out by the console."""
    kind = rng.choice(["none", "pale", "black"], p=[0.5, 0.25, 0.25])
    widths = rng.uniform(0.2, 1.6, 4) * (rng.random(4) < 0.6)  # left, right, top, bottom; cm
    if kind == "none":
        return tone
    edge = 0.10 if kind == "pale" else 0.02
    across = (np.arange(frame.columns, dtype=np.float32)[None, :] + 0.5) / frame.scale
    down = (np.arange(frame.rows, dtype=np.float32)[:, None] + 0.5) / frame.scale
    lit = np.ones_like(tone)
    for distance, width in (
        (across, widths[0]),
        (frame.columns / frame.scale - across, widths[1]),
        (down, widths[2]),
        (frame.rows / frame.scale - down, widths[3]),
    ):
        if width:
            lit = lit * np.clip((distance - width) / edge + 0.5, 0, 1)
    outside = 0.9 if kind == "pale" else 0.0
    return (outside + (tone - outside) * lit).astype(np.float32)
