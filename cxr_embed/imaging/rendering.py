"""Renders stored values to pixels: the two renderings, as pure functions.

A rendering is a curve over the stored values. A radiograph has millions of pixels and at most
65,536 different stored values, so the curve is computed once for each value and looked up for
each pixel. Curves work in float64, elementwise, and take their minimum and maximum from the values
that occur, so the result is bit for bit what the same arithmetic over all pixels gives.

Clauses are those of DICOM PS3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.rendering_attributes import (
    VOI_FUNCTIONS,
    LookupTable,
    RenderingAttributes,
    Window,
)

__all__ = ["LookupTable", "RenderingAttributes", "Window", "render"]

_UINT16_MAX = 65535

# Differences of larger numbers overflow.
_HUGE = 1e300

Curve = Callable[[np.ndarray, np.dtype, RenderingAttributes, list[str]], np.ndarray]


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
        rendering: `cxr_foundation` or `dicom`.
        steps: a line is appended for each step, in order, also where the rendering is rejected.

    Returns:
        uint8 or uint16 of the same shape, bright = dense.

    Raises:
        ImageRejected: `constant_image`, `bad_window`, `unsupported_bit_depth` or `decode_error`.
    """
    curve = {"cxr_foundation": cxr_foundation_curve, "dicom": dicom_curve}[rendering]
    steps = [] if steps is None else steps
    with np.errstate(all="ignore"):
        if stored.dtype.itemsize > 2 or stored.size < 1 << 16:
            return curve(stored, stored.dtype, attributes, steps)
        values = _occurring_values(stored, attributes)
        pixels = look_up(stored, values, curve(values, stored.dtype, attributes, steps))
    if attributes.voi_lut is not None:  # not monotone: values that do not occur may have differed
        _require_contrast(pixels)
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


def cxr_foundation_curve(
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
    steps.append(f"stored values {_span(stored)}")
    values, dtype = _modality(stored.astype(np.int64), dtype, attributes, steps)
    if attributes.window is not None:
        values = _window_cxr_foundation(values, attributes.window, steps)
        dtype = np.dtype(np.float64)
    if attributes.monochrome1:
        highest = values.max()
        values = highest - values
        steps.append(f"inverted (MONOCHROME1): {_number(highest)} - value")
    values, dtype = _shift_to_unsigned(values, dtype, steps)
    _require_contrast(values)
    if dtype.itemsize == 1:  # the original leaves 8-bit images, such as ChestX-ray14's, as they are
        steps.append("8-bit, not stretched")
        return values.astype(np.uint8)
    ends = (float(values.min()), float(values.max()))
    if ends != (0, _UINT16_MAX):
        steps.append(f"stretched from {_span(values)} to 0..{_UINT16_MAX}")
    return np.interp(values, ends, (0, _UINT16_MAX)).astype(np.uint16)


def dicom_curve(
    stored: np.ndarray, dtype: np.dtype, attributes: RenderingAttributes, steps: list[str]
) -> np.ndarray:
    """The standard's greyscale pipeline: modality, VOI and presentation transformation.

    Args:
        stored: stored values, any shape.
        dtype: the type that pydicom gives the image's pixel array.
        attributes: the attributes of the header.
        steps: a line is appended for each step.

    Returns:
        uint16 over the full range.

    Raises:
        ImageRejected: as in `render`.
    """
    steps.append(f"stored values {_span(stored)}")
    wide = stored.astype(np.int64)
    values, _ = _modality(wide, dtype, attributes, steps)
    if attributes.voi_lut is not None:  # C.11.2.1.1: prefer the table over the window
        table = attributes.voi_lut
        steps.append(f"VOI LUT, {table}, onto 0..{_UINT16_MAX}")
        shown = table.apply(np.rint(values).astype(np.int64)) / float((1 << table.bits) - 1)
    elif attributes.window is not None:
        shown = _window_dicom(values, attributes.window, attributes.voi_function, steps)
    else:
        shown = _spread_dicom(values, _is_valid(wide, attributes.padding), attributes, steps)
    # C.7.6.1 pairs MONOCHROME1 with INVERSE: both name the same inversion, which is applied once.
    # Where IDENTITY contradicts it, C.7.6.3.1.2 holds: the minimum of MONOCHROME1 is white.
    causes = ["MONOCHROME1"] * attributes.monochrome1 + ["INVERSE"] * attributes.inverse
    if causes:
        shown = 1.0 - shown
        steps.append(f"inverted ({', '.join(causes)}): {_UINT16_MAX} - value")
    pixels = np.floor(shown * _UINT16_MAX + 0.5).astype(np.uint16)
    _require_contrast(pixels)
    return pixels


def _modality(
    values: np.ndarray, dtype: np.dtype, attributes: RenderingAttributes, steps: list[str]
) -> tuple[np.ndarray, np.dtype]:
    """C.11.1: Modality LUT, or rescale, or nothing. Returns values and their nominal type."""
    if attributes.modality_lut is not None:
        entries = attributes.modality_lut.apply(values)
        steps.append(f"Modality LUT, {attributes.modality_lut}: {_span(entries)}")
        return entries.astype(np.int64), entries.dtype
    if attributes.rescale is not None:
        slope, intercept = attributes.rescale
        rescaled = values.astype(np.float64) * slope + intercept
        if not (np.abs(rescaled) < _HUGE).all():
            raise ImageRejected(
                "decode_error", "Rescale Slope and Intercept (0028,1053) (0028,1052) overflow"
            )
        sign = "-" if intercept < 0 else "+"
        steps.append(
            f"rescale, {_number(slope)} x value {sign} {_number(abs(intercept))}: {_span(rescaled)}"
        )
        return rescaled, np.dtype(np.float64)
    return values, dtype


def _window_cxr_foundation(values: np.ndarray, window: Window, steps: list[str]) -> np.ndarray:
    # The original cut the first of several values to an integer, and only then.
    centre = int(window.centre) if window.centre_is_listed else window.centre
    width = int(window.width) if window.width_is_listed else window.width
    low = centre - width / 2
    high = centre - 1 + width / 2
    if not -_HUGE < low < high < _HUGE:
        raise ImageRejected(
            "constant_image", f"Window Width (0028,1051) {width:g} leaves one value"
        )
    steps.append(
        f"window {_number(centre)} / {_number(width)}, LINEAR, "
        f"{_number(low)}..{_number(high)} onto 0..{_UINT16_MAX}"
    )
    return np.interp(values, (low, high), (0, _UINT16_MAX))


def _window_dicom(
    values: np.ndarray, window: Window, function: str, steps: list[str]
) -> np.ndarray:
    """C.11.2.1.2 and C.11.2.1.3, onto 0..1."""
    centre, width = window.centre, window.width
    function = function or "LINEAR"
    if function not in VOI_FUNCTIONS:
        raise ImageRejected("bad_window", "VOI LUT Function (0028,1056) is not a defined term")
    if width <= 0 or (function == "LINEAR" and width < 1):
        least = "at least 1" if function == "LINEAR" else "greater than 0"
        raise ImageRejected(
            "bad_window",
            f"Window Width (0028,1051) {width:g}: must be {least} for {function} (C.11.2.1.2)",
        )
    steps.append(f"window {_number(centre)} / {_number(width)}, {function}, onto 0..{_UINT16_MAX}")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:  # a step; the general formula would divide by nothing
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _spread_dicom(
    values: np.ndarray, is_valid: np.ndarray, attributes: RenderingAttributes, steps: list[str]
) -> np.ndarray:
    """Spreads the range of the valid values onto 0..1, where the header has no VOI."""
    valid = values[is_valid]
    if valid.size == 0:
        raise ImageRejected("constant_image", "every pixel is padding")
    left_out = ""
    if attributes.padding is not None:  # C.7.5.1.1.2
        left_out = f", padding {_span(np.array(attributes.padding))} left out"
    steps.append(f"no VOI: {_span(valid)}{left_out}, spread over 0..{_UINT16_MAX}")
    low, high = float(valid.min()), float(valid.max())
    _require_contrast(valid)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _is_valid(stored: np.ndarray, padding: tuple[int, int] | None) -> np.ndarray:
    if padding is None:
        return np.ones(stored.shape, bool)
    return (stored < padding[0]) | (stored > padding[1])


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
        steps.append(f"shifted by {_number(-lowest)} to start at 0")
    if dtype.kind == "i":
        return values, np.dtype(f"u{dtype.itemsize}")
    highest = values.max()
    if highest > _UINT16_MAX:
        values = np.minimum(values * (_UINT16_MAX / highest), _UINT16_MAX)
        steps.append(f"scaled down from {_number(highest)} to {_UINT16_MAX}")
    whole = np.trunc(values)
    if (whole != values).any():
        steps.append("fractions cut off")
    return whole, np.dtype(np.uint16)


def _require_contrast(values: np.ndarray) -> None:
    if values.min() == values.max():
        raise ImageRejected("constant_image", "one value in all pixels after rendering")


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def _span(values: np.ndarray) -> str:
    low, high = _number(values.min()), _number(values.max())
    return low if low == high else f"{low}..{high}"
