"""Renders stored values to pixels.

A rendering is a curve over the stored values. A radiograph has millions of pixels and at most
65,536 different stored values, so the curve is computed once for each value and looked up for
each pixel. Curves work in float64, elementwise, and take their minimum and maximum from the values
that occur, so the result is bit for bit what the same arithmetic over all pixels gives.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from cxr_embed.imaging.rendering_attributes import (
    LookupTable,
    RenderingAttributes,
    Window,
)
from cxr_embed.imaging.renderings import cxr_foundation, dicom
from cxr_embed.imaging.renderings.curves import Curve, require_contrast

__all__ = ["RENDERINGS", "LookupTable", "RenderingAttributes", "Window", "look_up", "render"]

# Adding one: a module with a `Curve` in `renderings/`, and a line here.
RENDERINGS: dict[str, Curve] = {
    "cxr_foundation": cxr_foundation.curve,
    "dicom": dicom.curve,
}


def require_rendering(rendering: str) -> None:
    """Raises `ValueError` where there is no rendering of that name."""
    if rendering not in RENDERINGS:
        raise ValueError(f"rendering {rendering!r}: pass one of {', '.join(RENDERINGS)}")


def render(
    stored: np.ndarray,
    attributes: RenderingAttributes,
    rendering: str = "cxr_foundation",
    steps: list[str] | None = None,
) -> np.ndarray:
    """Renders stored values to pixels.

    Args:
        stored: integers of shape (rows, columns), 8, 16 or 32 bit, signed or not.
        attributes: the attributes of the header.
        rendering: a key of `RENDERINGS`.
        steps: a line is appended for each step, in order, also where the rendering is rejected.

    Returns:
        uint8 or uint16 of the same shape, bright = dense.

    Raises:
        ImageRejected: `constant_image`, `bad_window`, `unsupported_bit_depth` or `decode_error`.
    """
    curve = RENDERINGS[rendering]
    steps = [] if steps is None else steps
    with np.errstate(all="ignore"):
        if stored.dtype.itemsize > 2 or stored.size < 1 << 16:
            return curve(stored, stored.dtype, attributes, steps)
        values = _occurring_values(stored, attributes)
        pixels = look_up(stored, values, curve(values, stored.dtype, attributes, steps))
    if attributes.voi_lut is not None:  # not monotone: values that do not occur may have differed
        require_contrast(pixels)
    return pixels


def _occurring_values(stored: np.ndarray, attributes: RenderingAttributes) -> np.ndarray:
    """Returns stored values, ascending, whose curve has the minimum and maximum of the image's.

    All curves but look-up tables are monotone, so the whole range between the image's extremes
    has the same extremes as the values that do occur, and takes a tenth of the time of counting
    them. A VOI LUT is applied last, after the extremes have been taken. Padding is left out of the
    extremes, so that the values that do occur are needed there too.
    """
    low, high, *_ = cv2.minMaxLoc(stored)
    values = np.arange(int(low), int(high) + 1)
    if attributes.modality_lut is None and attributes.padding is None:
        return values
    patterns = _bit_patterns(stored)
    size = 1 << 8 * stored.dtype.itemsize
    counts = cv2.calcHist([patterns], [0], None, [size], [0, size]).ravel()
    return values[counts[values & (size - 1)] > 0]


def look_up(stored: np.ndarray, values: np.ndarray, rendered: np.ndarray) -> np.ndarray:
    """Replaces each of `stored` by the entry of `rendered` that belongs to its value.

    Args:
        stored: integers of 8 or 16 bits, of shape (rows, columns).
        values: all that occur in it, and perhaps others.
        rendered: of the same length.

    Returns:
        The type of `rendered` and the shape of `stored`.
    """
    # Tables are addressed by bit pattern, so negative values come after the positive ones.
    size = 1 << 8 * stored.dtype.itemsize
    table = np.zeros(size, rendered.dtype)
    table[values & (size - 1)] = rendered
    return cast(np.ndarray, cv2.LUT(_bit_patterns(stored), table.reshape(1, -1)))


def _bit_patterns(stored: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")
