"""Folds batch norm into the convolution before it, for both formats of the exporter."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np

from cxr_embed.efficientnet.architecture import NORM_PARTS, Convolution, FloatArray


def fold(
    item: Convolution, weights: MutableMapping[str, FloatArray], epsilon: float
) -> tuple[FloatArray, FloatArray]:
    """Removes one convolution's weights from `weights` and returns its folded kernel and bias.

    Args:
        item: the convolution.
        weights: arrays by name as in `weight_layout`.
        epsilon: added to batch norm's variance.

    Returns:
        The kernel, of the shape `item.kernel`, and the bias, of shape (out channels,).
    """
    kernel = weights.pop(f"{item.name}/kernel")
    if not item.normalised:
        return kernel, weights.pop(f"{item.name}/bias")
    gamma, beta, mean, variance = (
        weights.pop(f"{item.name}/norm/{part}").astype(np.float64) for part in NORM_PARTS
    )
    scale = gamma / np.sqrt(variance + epsilon)
    # The channels of a depthwise kernel are the last but one axis.
    along = scale[:, np.newaxis] if item.depthwise else scale
    folded = kernel * along.astype(np.float32)
    return folded, (beta - mean * scale).astype(np.float32)
