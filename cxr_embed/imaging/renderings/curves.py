"""What the curves of several renderings have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.rendering_attributes import RenderingAttributes

UINT16_MAX = 65535

# Differences of larger numbers overflow.
HUGE = 1e300

# (stored values, the type that pydicom gives the image's pixel array, attributes of the header,
# a list that gets a line for each step) -> pixels of the same shape, uint8 or uint16.
Curve = Callable[[np.ndarray, np.dtype, RenderingAttributes, list[str]], np.ndarray]


def modality(
    values: np.ndarray, dtype: np.dtype, attributes: RenderingAttributes, steps: list[str]
) -> tuple[np.ndarray, np.dtype]:
    """C.11.1: Modality LUT, or rescale, or nothing. Returns values and their nominal type."""
    if attributes.modality_lut is not None:
        entries = attributes.modality_lut.apply(values)
        steps.append(f"Modality LUT, {attributes.modality_lut}: {span(entries)}")
        return entries.astype(np.int64), entries.dtype
    if attributes.rescale is not None:
        slope, intercept = attributes.rescale
        rescaled = values.astype(np.float64) * slope + intercept
        if not (np.abs(rescaled) < HUGE).all():
            raise ImageRejected(
                "decode_error", "Rescale Slope and Intercept (0028,1053) (0028,1052) overflow"
            )
        sign = "-" if intercept < 0 else "+"
        steps.append(
            f"rescale, {number(slope)} x value {sign} {number(abs(intercept))}: {span(rescaled)}"
        )
        return rescaled, np.dtype(np.float64)
    return values, dtype


def require_contrast(values: np.ndarray) -> None:
    """Raises `ImageRejected` where all values are equal."""
    if values.min() == values.max():
        raise ImageRejected("constant_image", "one value in all pixels after rendering")


def number(value: float) -> str:
    """Returns a number as the steps print it."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def span(values: np.ndarray) -> str:
    """Returns the range of values as the steps print it."""
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low}..{high}"
