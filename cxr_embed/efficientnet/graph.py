"""EfficientNet's forward pass in TensorFlow, written once for inference and for calibration.

Importing this module loads TensorFlow. Layout is NHWC and every number float32.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from cxr_embed.efficientnet.architecture import (
    EMBEDDING_KERNEL,
    NORM_PARTS,
    Architecture,
    Block,
    Convolution,
    convolutions,
    expand_blocks,
)

FloatArray = npt.NDArray[np.float32]
# TensorFlow ships no types that mypy could follow.
Tensor = Any


class Convolve(Protocol):
    """Applies one convolution, with its batch norm or bias, but without its activation."""

    def __call__(self, inputs: Tensor, name: str, stride: int = 1) -> Tensor:
        """Convolves `inputs` (N, H, W, C) with the weights called `name`."""
        ...


def pooled_features(architecture: Architecture, images: Tensor, convolve: Convolve) -> Tensor:
    """Runs the network from pixels to pooled features.

    Args:
        architecture: Which network.
        images: (N, H, W, 3) float32, pixels in 0..1; H and W may be odd or even.
        convolve: Applies the convolution of a given name.

    Returns:
        (N, features) float32, averaged over the last feature map.
    """
    norm = architecture.normalisation
    # The shift cannot be folded into the stem: its zero padding stands for the mean colour, and
    # a folded shift would be missing there.
    inputs = (images - tf.constant(norm.mean)) * tf.constant([1.0 / std for std in norm.std])
    flow = _activate(architecture, convolve(inputs, "stem", stride=2))
    for block in expand_blocks(architecture):
        flow = _run_block(architecture, block, flow, convolve)
    flow = _activate(architecture, convolve(flow, "head"))
    return tf.reduce_mean(flow, axis=[1, 2])


def _run_block(
    architecture: Architecture, block: Block, inputs: Tensor, convolve: Convolve
) -> Tensor:
    flow = inputs
    if block.expansion != 1:
        flow = _activate(architecture, convolve(flow, f"{block.name}/expand"))
    flow = convolve(flow, f"{block.name}/depthwise", stride=block.stride)
    flow = _activate(architecture, flow)
    if block.squeeze_channels:
        gate = tf.reduce_mean(flow, axis=[1, 2], keepdims=True)
        gate = _activate(architecture, convolve(gate, f"{block.name}/squeeze"))
        flow = flow * tf.sigmoid(convolve(gate, f"{block.name}/excite"))
    flow = convolve(flow, f"{block.name}/project")
    # Stochastic depth, which sits here in training, is the identity at inference.
    return flow + inputs if block.has_skip else flow


def _activate(architecture: Architecture, inputs: Tensor) -> Tensor:
    if architecture.activation == "relu6":
        return tf.nn.relu6(inputs)
    # tf.nn.silu would do the same and store a custom gradient function for each of its uses.
    return inputs * tf.sigmoid(inputs)


def raw_convolution(
    inputs: Tensor, kernel: Tensor, *, stride: int = 1, depthwise: bool = False
) -> Tensor:
    """Convolves without bias, padded as the original TensorFlow network is.

    Args:
        inputs: (N, H, W, C) float32.
        kernel: (k, k, in, out), or (k, k, channels, 1) if `depthwise`.
        stride: 1 or 2.
        depthwise: Convolve each channel on its own.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), out) float32. "SAME" puts the odd pixel of padding
        at the bottom and right, which is what published weights expect.
    """
    strides = [1, stride, stride, 1]
    if depthwise:
        return tf.nn.depthwise_conv2d(inputs, kernel, strides=strides, padding="SAME")
    return tf.nn.conv2d(inputs, kernel, strides=strides, padding="SAME")


class FoldedEfficientNet(tf.Module):
    """EfficientNet for inference: batch norm folded into the kernels, each weight held once.

    Called with (N, H, W, 3) float32 pixels in 0..1, it returns (N, features) pooled features, or
    (N, embedding size) if the weights hold an `embedding/kernel`.
    """

    def __init__(self, architecture: Architecture, weights: MutableMapping[str, FloatArray]):
        """Folds weights into variables.

        Args:
            architecture: Which network.
            weights: Name to array as in `cxr_embed.efficientnet.architecture.weight_layout`.
                **Emptied on the way**, so that a large network is never in memory twice.
        """
        super().__init__(name="efficientnet")
        self.architecture = architecture
        self._convolutions = {item.name: item for item in convolutions(architecture)}
        # Lists rather than a dictionary by name: tf.Module follows both, and a list keeps the
        # stored object graph small.
        self._order = {name: place for place, name in enumerate(self._convolutions)}
        self._kernels: list[Tensor] = []
        self._biases: list[Tensor] = []
        for item in self._convolutions.values():
            kernel, bias = _fold(item, weights, architecture.norm_epsilon)
            self._kernels.append(tf.Variable(kernel, trainable=False, name=f"{item.name}/kernel"))
            self._biases.append(tf.Variable(bias, trainable=False, name=f"{item.name}/bias"))
        self._embedding = None
        if EMBEDDING_KERNEL in weights:
            kernel = weights.pop(EMBEDDING_KERNEL)
            self._embedding = tf.Variable(kernel, trainable=False, name=EMBEDDING_KERNEL)

    def __call__(self, images: Tensor) -> Tensor:
        """Embeds a batch; see the class."""
        features = pooled_features(self.architecture, images, self._convolve)
        return features if self._embedding is None else tf.matmul(features, self._embedding)

    def _convolve(self, inputs: Tensor, name: str, stride: int = 1) -> Tensor:
        place = self._order[name]
        depthwise = self._convolutions[name].depthwise
        kernel = self._kernels[place]
        flow = raw_convolution(inputs, kernel, stride=stride, depthwise=depthwise)
        # Not tf.nn.bias_add: with that, oneDNN fuses bias and swish into pointwise convolutions,
        # and the fused ones take more than twice the time (TensorFlow 2.21, AVX2).
        return flow + self._biases[place]


def _fold(
    item: Convolution, weights: MutableMapping[str, FloatArray], epsilon: float
) -> tuple[FloatArray, FloatArray]:
    """Takes one convolution's weights out of `weights` and returns its folded kernel and bias."""
    kernel = weights.pop(f"{item.name}/kernel")
    if not item.normalised:
        return kernel, weights.pop(f"{item.name}/bias")
    gamma, beta, mean, variance = (
        weights.pop(f"{item.name}/norm/{part}").astype(np.float64) for part in NORM_PARTS
    )
    scale = gamma / np.sqrt(variance + epsilon)
    # A depthwise kernel has its channels one axis before the last.
    along = scale[:, np.newaxis] if item.depthwise else scale
    folded = kernel * along.astype(np.float32)
    return folded, (beta - mean * scale).astype(np.float32)
