"""EfficientNet's forward pass in TensorFlow, shared by inference and calibration.

Importing this module loads TensorFlow. The layout is NHWC, and all tensors are float32.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Protocol

import tensorflow as tf

from cxr_embed.efficientnet.architecture import (
    EMBEDDING_KERNEL,
    Architecture,
    Block,
    FloatArray,
    convolutions,
    expand_blocks,
)
from cxr_embed.efficientnet.folding import fold

# TensorFlow has no type annotations for mypy.
Tensor = Any


class Convolve(Protocol):
    """Applies one convolution, with its batch norm or bias, but without its activation."""

    def __call__(self, inputs: Tensor, name: str, stride: int = 1) -> Tensor:
        """Convolves `inputs` (N, H, W, C) with the weights of `name`."""
        ...


def pooled_features(architecture: Architecture, images: Tensor, convolve: Convolve) -> Tensor:
    """Runs the network from pixels to pooled features.

    Args:
        architecture: The network.
        images: (N, H, W, 3) float32, pixels in 0..1; H and W may be odd or even.
        convolve: Applies the convolution of a given name.

    Returns:
        (N, features) float32, averaged over the last feature map.
    """
    norm = architecture.normalisation
    # The mean cannot be folded into the stem's bias: the zero padding is added after normalisation,
    # so that it represents the mean colour.
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
    # Stochastic depth is applied here in training; at inference it is the identity.
    return flow + inputs if block.has_skip else flow


def _activate(architecture: Architecture, inputs: Tensor) -> Tensor:
    if architecture.activation == "relu6":
        return tf.nn.relu6(inputs)
    # tf.nn.silu gives the same result but stores a custom gradient function for each use.
    return inputs * tf.sigmoid(inputs)


def raw_convolution(
    inputs: Tensor, kernel: Tensor, *, stride: int = 1, depthwise: bool = False
) -> Tensor:
    """Convolves without bias, with the padding of the original TensorFlow network.

    Args:
        inputs: (N, H, W, C) float32.
        kernel: (k, k, in, out), or (k, k, channels, 1) if `depthwise`.
        stride: 1 or 2.
        depthwise: Convolve each channel on its own.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), out) float32. "SAME" adds an odd pixel of padding
        at the bottom and right, as published weights require.
    """
    strides = [1, stride, stride, 1]
    if depthwise:
        return tf.nn.depthwise_conv2d(inputs, kernel, strides=strides, padding="SAME")
    return tf.nn.conv2d(inputs, kernel, strides=strides, padding="SAME")


class FoldedEfficientNet(tf.Module):
    """EfficientNet for inference, with batch norm folded into the kernels.

    Called with (N, H, W, 3) float32 pixels in 0..1, it returns (N, features) pooled features, or
    (N, embedding size) if the weights contain an `embedding/kernel`.
    """

    def __init__(self, architecture: Architecture, weights: MutableMapping[str, FloatArray]):
        """Folds weights into variables.

        Args:
            architecture: The network.
            weights: Arrays by name as in `cxr_embed.efficientnet.architecture.weight_layout`.
                **This mapping is emptied**, so that a large network is never in memory twice.
        """
        super().__init__(name="efficientnet")
        self.architecture = architecture
        self._convolutions = {item.name: item for item in convolutions(architecture)}
        # Lists instead of a dictionary by name: tf.Module tracks both, and with lists the stored
        # object graph is smaller.
        self._order = {name: place for place, name in enumerate(self._convolutions)}
        self._kernels: list[Tensor] = []
        self._biases: list[Tensor] = []
        for item in self._convolutions.values():
            kernel, bias = fold(item, weights, architecture.norm_epsilon)
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
        # Not tf.nn.bias_add: oneDNN would fuse bias and swish into pointwise convolutions, which
        # then take more than twice the time (TensorFlow 2.21, AVX2).
        return flow + self._biases[place]
