"""The rendering `cxr_foundation`: what the CXR Foundation toolkit v1 sent to its model."""

from __future__ import annotations

import numpy as np

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.rendering_attributes import RenderingAttributes, Window
from cxr_embed.imaging.renderings.curves import (
    HUGE,
    UINT16_MAX,
    modality,
    number,
    require_contrast,
    span,
)


def curve(
    stored: np.ndarray, dtype: np.dtype, attributes: RenderingAttributes, steps: list[str]
) -> np.ndarray:
    """Computes the pixels that the CXR Foundation toolkit v1 encoded as PNG.

    Written after its published `example_generator_lib.py` (Google Health, 2022), with integers
    widened where the original overflowed.

    Args:
        stored: stored values, any shape.
        dtype: the type that pydicom gives the image's pixel array.
        attributes: the attributes of the header.
        steps: a line is appended for each step.

    Returns:
        uint8 (from 8-bit integers, not stretched) or uint16 over the full range.

    Raises:
        ImageRejected: as in `render`.
    """
    steps.append(f"stored values {span(stored)}")
    values, dtype = modality(stored.astype(np.int64), dtype, attributes, steps)
    if attributes.window is not None:
        values = _window(values, attributes.window, steps)
        dtype = np.dtype(np.float64)
    if attributes.monochrome1:
        highest = values.max()
        values = highest - values
        steps.append(f"inverted (MONOCHROME1): {number(highest)} - value")
    values, dtype = _shift_to_unsigned(values, dtype, steps)
    require_contrast(values)
    if dtype.itemsize == 1:  # the original leaves 8-bit images, such as ChestX-ray14's, as they are
        steps.append("8-bit, not stretched")
        return values.astype(np.uint8)
    ends = (float(values.min()), float(values.max()))
    if ends != (0, UINT16_MAX):
        steps.append(f"stretched from {span(values)} to 0..{UINT16_MAX}")
    return np.interp(values, ends, (0, UINT16_MAX)).astype(np.uint16)


def _window(values: np.ndarray, window: Window, steps: list[str]) -> np.ndarray:
    # The original cut the first of several values to an integer, and only then.
    centre = int(window.centre) if window.centre_is_listed else window.centre
    width = int(window.width) if window.width_is_listed else window.width
    low = centre - width / 2
    high = centre - 1 + width / 2
    if not -HUGE < low < high < HUGE:
        raise ImageRejected(
            "constant_image", f"Window Width (0028,1051) {width:g} leaves one value"
        )
    steps.append(
        f"window {number(centre)} / {number(width)}, LINEAR, "
        f"{number(low)}..{number(high)} onto 0..{UINT16_MAX}"
    )
    return np.interp(values, (low, high), (0, UINT16_MAX))


def _shift_to_unsigned(
    values: np.ndarray, dtype: np.dtype, steps: list[str]
) -> tuple[np.ndarray, np.dtype]:
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return values, dtype
    if dtype.kind in "iu" and dtype.itemsize > 2:
        raise ImageRejected(
            "unsupported_bit_depth",
            f"{8 * dtype.itemsize}-bit stored values with neither window nor rescale",
        )
    lowest = values.min()
    values = values - lowest
    if lowest:
        steps.append(f"shifted by {number(-lowest)} to start at 0")
    if dtype.kind == "i":
        return values, np.dtype(f"u{dtype.itemsize}")
    highest = values.max()
    if highest > UINT16_MAX:
        values = np.minimum(values * (UINT16_MAX / highest), UINT16_MAX)
        steps.append(f"scaled down from {number(highest)} to {UINT16_MAX}")
    whole = np.trunc(values)
    if (whole != values).any():
        steps.append("fractions cut off")
    return whole, np.dtype(np.uint16)
