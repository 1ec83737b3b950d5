"""Architecture tables of EfficientNet: blocks, and names and shapes of weights.

This module does not import TensorFlow, so that sizes, counts and weight names are available without
it. The forward pass is in `cxr_embed.efficientnet.graph`.

Sources: Tan and Le, "EfficientNet" (arXiv 1905.11946), table 1 and section 3.3, for the baseline
and compound scaling; Xie et al., "Self-training with Noisy Student" (arXiv 1911.04252), for L2;
the EfficientNet-Lite announcement (TensorFlow blog, March 2020) for the lite variant.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Activation = Literal["swish", "relu6"]

# Means and standard deviations are of RGB values in 0..1.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# One row a stage of the baseline network: kernel, stride, expansion, in, out, repeats.
_BASELINE_STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)
_BASELINE_STEM = 32
_BASELINE_HEAD = 1280
_CHANNEL_DIVISOR = 8
_STEM_KERNEL = 3

# The four vectors of a batch norm, in the order in which they are listed and counted.
NORM_PARTS = ("gamma", "beta", "mean", "variance")
EMBEDDING_KERNEL = "embedding/kernel"


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of pixels in 0..1 before the stem: `(pixel - mean) / std` for each channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation(_IMAGENET_MEAN, _IMAGENET_STD)
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Architecture:
    """One member of the EfficientNet family.

    Attributes:
        name: Name on the command line, such as `efficientnet-b0`.
        width: Multiplier of the baseline's channels.
        depth: Multiplier of the baseline's repeats.
        image_size: Side of the square input that the model is exported for by default, in pixels.
        squeeze_ratio: Squeeze-and-excitation channels over the block's input channels; 0 is none.
        activation: Activation function of all layers.
        fixed_ends: Keep the stem, the head and the repeats of the first and last stage unscaled,
            as the lite variants do.
        norm_epsilon: Added to batch norm's variance.
        normalisation: Normalisation of the architecture's published weights.
    """

    name: str
    width: float
    depth: float
    image_size: int
    squeeze_ratio: float = 0.25
    activation: Activation = "swish"
    fixed_ends: bool = False
    norm_epsilon: float = 1e-3
    normalisation: Normalisation = IMAGENET

    @property
    def stem_channels(self) -> int:
        """Channels after the stem."""
        return _BASELINE_STEM if self.fixed_ends else _scale_channels(_BASELINE_STEM, self.width)

    @property
    def features(self) -> int:
        """Length of the pooled feature vector: the channels of the head convolution."""
        return _BASELINE_HEAD if self.fixed_ends else _scale_channels(_BASELINE_HEAD, self.width)


@dataclass(frozen=True)
class Block:
    """One inverted residual block (MBConv).

    Attributes:
        name: Prefix of its weights' names, `blocks/00` and up.
        stage: Zero-based stage it belongs to.
        index: Zero-based index within its stage.
        kernel: Side of the depthwise kernel.
        stride: Stride of the depthwise convolution.
        expansion: Factor of the first pointwise convolution; 1 means that there is none.
        in_channels: Input channels.
        out_channels: Output channels.
        squeeze_channels: Channels inside squeeze-and-excitation; 0 means that there is none.
    """

    name: str
    stage: int
    index: int
    kernel: int
    stride: int
    expansion: int
    in_channels: int
    out_channels: int
    squeeze_channels: int

    @property
    def expanded_channels(self) -> int:
        """Channels of the depthwise convolution."""
        return self.in_channels * self.expansion

    @property
    def has_skip(self) -> bool:
        """Whether the block's input is added to its output."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Convolution:
    """One convolution with its batch norm or bias.

    Attributes:
        name: Prefix of its weights' names, such as `blocks/00/project`.
        kernel: TensorFlow's kernel shape: `(k, k, in, out)`, depthwise `(k, k, channels, 1)`.
        depthwise: Whether each channel is convolved on its own.
        normalised: Whether batch norm follows. Otherwise a bias is added (squeeze-and-excitation).
    """

    name: str
    kernel: tuple[int, int, int, int]
    depthwise: bool = False
    normalised: bool = True

    @property
    def out_channels(self) -> int:
        """Output channels."""
        return self.kernel[2] if self.depthwise else self.kernel[3]


ARCHITECTURES: dict[str, Architecture] = {
    item.name: item
    for item in (
        Architecture("efficientnet-b0", 1.0, 1.0, 224),
        Architecture("efficientnet-b1", 1.0, 1.1, 240),
        Architecture("efficientnet-b2", 1.1, 1.2, 260),
        Architecture("efficientnet-b3", 1.2, 1.4, 300),
        Architecture("efficientnet-b4", 1.4, 1.8, 380),
        Architecture("efficientnet-b5", 1.6, 2.2, 456),
        Architecture("efficientnet-b6", 1.8, 2.6, 528),
        Architecture("efficientnet-b7", 2.0, 3.1, 600),
        # Noisy Student trained L2 at 475 and fine-tuned it at 800. 475 is fast enough on a CPU.
        Architecture("efficientnet-l2", 4.3, 5.3, 475),
        Architecture(
            "efficientnet-lite0",
            1.0,
            1.0,
            224,
            squeeze_ratio=0.0,
            activation="relu6",
            fixed_ends=True,
            normalisation=HALF,
        ),
    )
}


def _scale_channels(channels: int, width: float) -> int:
    """Scales and rounds to a multiple of 8, but not below 90 % (the published rule)."""
    scaled = channels * width
    rounded = int(scaled + _CHANNEL_DIVISOR / 2) // _CHANNEL_DIVISOR * _CHANNEL_DIVISOR
    rounded = max(_CHANNEL_DIVISOR, rounded)
    return rounded + _CHANNEL_DIVISOR if rounded < 0.9 * scaled else rounded


def expand_blocks(architecture: Architecture) -> tuple[Block, ...]:
    """Returns all blocks of a network from input to output."""
    blocks: list[Block] = []
    last_stage = len(_BASELINE_STAGES) - 1
    for stage, (kernel, stride, expansion, _, out, repeats) in enumerate(_BASELINE_STAGES):
        if not (architecture.fixed_ends and stage in (0, last_stage)):
            repeats = math.ceil(repeats * architecture.depth)  # noqa: PLW2901
        for index in range(repeats):
            into = blocks[-1].out_channels if blocks else architecture.stem_channels
            squeeze = int(into * architecture.squeeze_ratio)
            blocks.append(
                Block(
                    name=f"blocks/{len(blocks):02d}",
                    stage=stage,
                    index=index,
                    kernel=kernel,
                    stride=stride if index == 0 else 1,
                    expansion=expansion,
                    in_channels=into,
                    out_channels=_scale_channels(out, architecture.width),
                    squeeze_channels=max(1, squeeze) if architecture.squeeze_ratio else 0,
                )
            )
    return tuple(blocks)


def convolutions(architecture: Architecture) -> tuple[Convolution, ...]:
    """Returns all convolutions of a network from input to output."""
    stem = (_STEM_KERNEL, _STEM_KERNEL, 3, architecture.stem_channels)
    found = [Convolution("stem", stem)]
    blocks = expand_blocks(architecture)
    for block in blocks:
        wide, squeeze = block.expanded_channels, block.squeeze_channels
        if block.expansion != 1:
            found.append(Convolution(f"{block.name}/expand", (1, 1, block.in_channels, wide)))
        depthwise = (block.kernel, block.kernel, wide, 1)
        found.append(Convolution(f"{block.name}/depthwise", depthwise, depthwise=True))
        if squeeze:
            reduce, excite = (1, 1, wide, squeeze), (1, 1, squeeze, wide)
            found.append(Convolution(f"{block.name}/squeeze", reduce, normalised=False))
            found.append(Convolution(f"{block.name}/excite", excite, normalised=False))
        found.append(Convolution(f"{block.name}/project", (1, 1, wide, block.out_channels)))
    head = (1, 1, blocks[-1].out_channels, architecture.features)
    found.append(Convolution("head", head))
    return tuple(found)


def weight_layout(
    architecture: Architecture, embedding_size: int = 0
) -> dict[str, tuple[int, ...]]:
    """Returns name and shape of every weight before batch norm is folded. All are float32.

    Args:
        architecture: The network.
        embedding_size: Columns of the projection of the pooled features; 0 is no projection.

    Returns:
        In network order: `<convolution>/kernel`, then either `<convolution>/norm/gamma`,
        `beta`, `mean` and `variance` or `<convolution>/bias`; with a projection, the last one is
        `embedding/kernel` of shape `(features, embedding_size)`.
    """
    layout: dict[str, tuple[int, ...]] = {}
    for convolution in convolutions(architecture):
        layout[f"{convolution.name}/kernel"] = convolution.kernel
        vector = (convolution.out_channels,)
        if convolution.normalised:
            layout.update({f"{convolution.name}/norm/{part}": vector for part in NORM_PARTS})
        else:
            layout[f"{convolution.name}/bias"] = vector
    if embedding_size:
        layout[EMBEDDING_KERNEL] = (architecture.features, embedding_size)
    return layout


def folded_parameter_count(architecture: Architecture, embedding_size: int = 0) -> int:
    """Counts the parameters of the exported network: kernels, one bias each, projection."""
    convolutional = sum(
        int(np.prod(item.kernel)) + item.out_channels for item in convolutions(architecture)
    )
    return convolutional + architecture.features * embedding_size


def with_normalisation(architecture: Architecture, normalisation: Normalisation) -> Architecture:
    """Returns the same network with another normalisation of pixels."""
    return dataclasses.replace(architecture, normalisation=normalisation)
