"""Calibrates batch norm for random weights on synthetic radiographs.

A deep network with random weights maps all images to nearly the same vector, unless the mean and
variance of each batch norm match its real activations. One pass is enough: each layer is measured
on the outputs of the calibrated layers before it.

Importing this module loads TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from cxr_embed.efficientnet.architecture import Architecture, convolutions
from cxr_embed.efficientnet.graph import (
    FloatArray,
    Tensor,
    pooled_features,
    raw_convolution,
)

Plane = npt.NDArray[np.float64]


def calibrate_batch_norm(
    architecture: Architecture, weights: MutableMapping[str, FloatArray], images: FloatArray
) -> FloatArray:
    """Sets every batch norm's mean and variance from the activations of a few images.

    Args:
        architecture: The network.
        weights: Arrays by name as in `weight_layout`. `norm/mean` and `norm/variance` are written;
            all others must exist.
        images: (N, H, W, 3) float32, pixels in 0..1.

    Returns:
        (N, features) float32, the images' pooled features.
    """
    known = {item.name: item for item in convolutions(architecture)}

    def convolve(inputs: Tensor, name: str, stride: int = 1) -> Tensor:
        item = known[name]
        kernel = weights[f"{name}/kernel"]
        flow = raw_convolution(inputs, kernel, stride=stride, depthwise=item.depthwise)
        if not item.normalised:
            return tf.nn.bias_add(flow, weights[f"{name}/bias"])
        mean, variance = (part.numpy() for part in tf.nn.moments(flow, axes=[0, 1, 2]))
        weights[f"{name}/norm/mean"], weights[f"{name}/norm/variance"] = mean, variance
        gamma, beta = weights[f"{name}/norm/gamma"], weights[f"{name}/norm/beta"]
        scale = gamma / np.sqrt(variance + np.float32(architecture.norm_epsilon))
        return flow * scale + (beta - mean * scale)

    return pooled_features(architecture, tf.constant(images), convolve).numpy()


def synthetic_radiographs(count: int, size: int, *, seed: int = 0) -> FloatArray:
    """Draws grey pictures with the contrasts of a chest radiograph, but without anatomy.

    Each picture has a bright body on a dark background, two dark lung fields of random position and
    shape, a bright middle, rib-like bands, a few soft blobs and 1/f noise. Brightness, contrast and
    position vary as in real images.

    Args:
        count: Number of images.
        size: Side in pixels.
        seed: Any integer.

    Returns:
        (count, size, size, 3) float32 in 0..1; each image covers 0 to 1 in three equal channels.
    """
    source = np.random.Generator(np.random.PCG64([seed % 2**63, 0xC4E57]))
    pictures = np.stack([_synthetic_radiograph(source, size) for _ in range(count)])
    return np.repeat(pictures[..., np.newaxis].astype(np.float32), 3, axis=-1)


def _synthetic_radiograph(source: np.random.Generator, size: int) -> Plane:
    line = np.linspace(-1.0, 1.0, size)
    across, down = np.meshgrid(line + source.uniform(-0.1, 0.1), line + source.uniform(-0.1, 0.1))
    middle = source.uniform(-0.05, 0.05)

    body = _ellipse(across, down, (middle, 0.15), (source.uniform(0.8, 1.1), 1.25), soft=0.08)
    picture = source.uniform(0.5, 0.9) * body
    for side in (-1, 1):
        centre = (middle + side * source.uniform(0.36, 0.46), source.uniform(-0.2, 0.05))
        radii = (source.uniform(0.22, 0.34), source.uniform(0.5, 0.75))
        lung = _ellipse(across, down, centre, radii, soft=source.uniform(0.1, 0.3))
        ribs = 1.0 - source.uniform(0.1, 0.3) * (
            np.sin(source.uniform(18, 30) * (down + 0.4 * side * across + 0.3 * across**2)) > 0.3
        )
        picture *= 1.0 - source.uniform(0.5, 0.85) * lung * ribs
    for _ in range(source.integers(3, 9)):
        centre = (source.uniform(-0.8, 0.8), source.uniform(-0.8, 0.8))
        radii = (source.uniform(0.04, 0.3), source.uniform(0.04, 0.3))
        blob = _ellipse(across, down, centre, radii, soft=source.uniform(0.3, 0.9))
        picture += source.uniform(-0.25, 0.35) * blob
    picture += source.uniform(0.05, 0.15) * _pink_noise(source, size)
    picture -= picture.min()
    return (picture / picture.max()) ** source.uniform(0.6, 1.6)


def _ellipse(
    across: Plane, down: Plane, centre: tuple[float, float], radii: tuple[float, float], soft: float
) -> Plane:
    """Returns 1 inside and 0 outside, with an edge of width `soft` (in radii)."""
    distance = np.hypot((across - centre[0]) / radii[0], (down - centre[1]) / radii[1])
    return 1.0 / (1.0 + np.exp(np.clip((distance - 1.0) * 4.0 / soft, -50.0, 50.0)))


def _pink_noise(source: np.random.Generator, size: int) -> Plane:
    """Returns noise with a 1/f amplitude spectrum, as in natural images; standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, np.newaxis], np.fft.rfftfreq(size))
    frequency[0, 0] = math.inf
    noise = np.fft.irfft2(
        np.fft.rfft2(source.standard_normal((size, size))) / frequency, s=(size,) * 2
    )
    return noise / noise.std()
