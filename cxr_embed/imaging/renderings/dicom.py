"""The rendering `dicom`: the standard's greyscale pipeline, PS3.3 C.11 and C.7.6.3."""

from __future__ import annotations

import numpy as np

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.rendering_attributes import VOI_FUNCTIONS, RenderingAttributes, Window
from cxr_embed.imaging.renderings.curves import (
    UINT16_MAX,
    modality,
    number,
    require_contrast,
    span,
)


def curve(
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
    steps.append(f"stored values {span(stored)}")
    wide = stored.astype(np.int64)
    values, _ = modality(wide, dtype, attributes, steps)
    if attributes.voi_lut is not None:  # C.11.2.1.1: prefer the table over the window
        table = attributes.voi_lut
        steps.append(f"VOI LUT, {table}, onto 0..{UINT16_MAX}")
        shown = table.apply(np.rint(values).astype(np.int64)) / float((1 << table.bits) - 1)
    elif attributes.window is not None:
        shown = _window(values, attributes.window, attributes.voi_function, steps)
    else:
        shown = _spread(values, _is_valid(wide, attributes.padding), attributes, steps)
    # C.7.6.1 pairs MONOCHROME1 with INVERSE: both name the same inversion, which is applied once.
    # Where IDENTITY contradicts it, C.7.6.3.1.2 holds: the minimum of MONOCHROME1 is white.
    causes = ["MONOCHROME1"] * attributes.monochrome1 + ["INVERSE"] * attributes.inverse
    if causes:
        shown = 1.0 - shown
        steps.append(f"inverted ({', '.join(causes)}): {UINT16_MAX} - value")
    pixels = np.floor(shown * UINT16_MAX + 0.5).astype(np.uint16)
    require_contrast(pixels)
    return pixels


def _window(values: np.ndarray, window: Window, function: str, steps: list[str]) -> np.ndarray:
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
    steps.append(f"window {number(centre)} / {number(width)}, {function}, onto 0..{UINT16_MAX}")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:  # a step; the general formula would divide by nothing
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _spread(
    values: np.ndarray, is_valid: np.ndarray, attributes: RenderingAttributes, steps: list[str]
) -> np.ndarray:
    """Spreads the range of the valid values onto 0..1, where the header has no VOI."""
    valid = values[is_valid]
    if valid.size == 0:
        raise ImageRejected("constant_image", "every pixel is padding")
    left_out = ""
    if attributes.padding is not None:  # C.7.5.1.1.2
        left_out = f", padding {span(np.array(attributes.padding))} left out"
    steps.append(f"no VOI: {span(valid)}{left_out}, spread over 0..{UINT16_MAX}")
    low, high = float(valid.min()), float(valid.max())
    require_contrast(valid)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _is_valid(stored: np.ndarray, padding: tuple[int, int] | None) -> np.ndarray:
    if padding is None:
        return np.ones(stored.shape, bool)
    return (stored < padding[0]) | (stored > padding[1])
