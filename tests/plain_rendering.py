"""The original toolkit's rendering as plain arithmetic over every pixel, to compare with.

Written from the published description of its steps; slow on purpose, sharing no code with the
package, and refusing what the original could not do.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def render_plainly(
    stored: np.ndarray,
    *,
    window: tuple[Any, Any] | None = None,
    rescale: tuple[float, float] | None = None,
    monochrome1: bool = False,
) -> np.ndarray:
    """Renders `stored` as the original did; lists stand for multi-valued window elements."""
    image = stored
    if rescale is not None:
        image = image.astype(np.float64) * rescale[0] + rescale[1]
    if window is not None:
        centre, width = (int(v[0]) if isinstance(v, list) else v for v in window)
        bottom, top = centre - width / 2, centre - 1 + width / 2
        image = np.interp(np.clip(image, bottom, top), (bottom, top), (0, 65535))
    if monochrome1:
        image = image.max() - (image.astype(np.int64) if image.dtype.kind == "i" else image)
    if image.dtype.kind == "i":
        wide = image.astype(np.int64)
        image = (wide - wide.min()).astype(f"u{stored.dtype.itemsize}")
    elif image.dtype.kind == "f":
        image = image - image.min()
        if image.max() > 65535:
            image = np.minimum(image * (65535 / image.max()), 65535)
        image = image.astype(np.uint16)
    if image.dtype == np.uint8:
        return image
    return np.interp(image, (image.min(), image.max()), (0, 65535)).astype(np.uint16)
