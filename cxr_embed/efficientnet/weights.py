"""Weights of the reference network: a record of them, seeded random ones, and their checks.

Weights from any source are one mapping from the names of
`cxr_embed.efficientnet.architecture.weight_layout` to float32 arrays, before batch norm is folded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cxr_embed.efficientnet.architecture import (
    EMBEDDING_KERNEL,
    Architecture,
    Convolution,
    FloatArray,
    convolutions,
    expand_blocks,
    weight_layout,
)
from cxr_embed.errors import UsageError

# A larger picture would make calibration of L2 need more memory than a laptop has, and
# would measure the same spread of activations.
_LARGEST_CALIBRATION_SIZE = 192
_CALIBRATION_IMAGES = 4

# Three choices keep the random network from being chaotic. With plain batch norm (gamma 1, beta 0)
# a deep one blows up whatever lies outside of its calibration, by many orders of magnitude,
# because swish has twice the slope for large inputs that it has around zero.
# Around 1 swish is almost straight, so that the gain of a layer hardly depends on its input.
_BETA_BEFORE_ACTIVATION = 1.0
# No shift before the last activation: the features of different images then point apart.
_BETA_OF_HEAD = 0.0
# Small residual branches: the identity path carries most of the signal through deep stages.
_GAMMA_OF_RESIDUAL = 0.3

# Even, since one raw number makes two values.
_DRAWN_AT_ONCE = 2**20

_NAMES_IN_AN_ERROR = 5


@dataclass
class Weights:
    """A full set of weights and where it comes from.

    Attributes:
        architecture: The network they belong to, with the normalisation they expect.
        arrays: Name to float32 array, as in `weight_layout`.
        source: `random`, or the name of the file they were read from.
        trained: Whether they are the result of a training.
    """

    architecture: Architecture
    arrays: dict[str, FloatArray]
    source: str
    trained: bool


def random_weights(architecture: Architecture, *, image_size: int, seed: int = 0) -> Weights:
    """Draws seeded random weights whose embeddings of different radiographs differ.

    Kernels are uniform, each from a stream of its own that is keyed by seed and name: they are
    the same bits on every machine and with every NumPy. Batch norm's statistics are then measured
    on synthetic radiographs (`cxr_embed.efficientnet.calibration`), without which a deep random
    network gives nearly the same embedding for every image. TensorFlow's convolutions compute them,
    so that another kind of processor may change their last digits.

    Args:
        architecture: Which network.
        image_size: Side of the images it will see, in pixels. Larger ones than 192 are calibrated
            at 192.
        seed: Any integer; the same seed gives the same network.

    Returns:
        All weights of `weight_layout(architecture)`; untrained.
    """
    from cxr_embed.efficientnet import calibration

    residual = {f"{item.name}/project" for item in expand_blocks(architecture) if item.has_skip}
    arrays: dict[str, FloatArray] = {}
    for item in convolutions(architecture):
        fan_in = math.prod(item.kernel[:2]) * (1 if item.depthwise else item.kernel[2])
        name = f"{item.name}/kernel"
        arrays[name] = draw_uniform(name, item.kernel, std=math.sqrt(2.0 / fan_in), seed=seed)
        if item.normalised:
            gamma = _GAMMA_OF_RESIDUAL if item.name in residual else 1.0
            arrays[f"{item.name}/norm/gamma"] = _vector(item, gamma)
            arrays[f"{item.name}/norm/beta"] = _vector(item, _initial_beta(item))
        else:
            arrays[f"{item.name}/bias"] = _vector(item, 0.0)
    size = min(image_size, _LARGEST_CALIBRATION_SIZE)
    images = calibration.synthetic_radiographs(_CALIBRATION_IMAGES, size, seed=seed)
    calibration.calibrate_batch_norm(architecture, arrays, images)
    return Weights(architecture, arrays, source="random", trained=False)


def _vector(item: Convolution, value: float) -> FloatArray:
    return np.full(item.out_channels, value, np.float32)


def _initial_beta(item: Convolution) -> float:
    if item.name == "head":
        return _BETA_OF_HEAD
    return 0.0 if item.name.endswith("/project") else _BETA_BEFORE_ACTIVATION


def orthogonal_projection(features: int, size: int, *, seed: int = 0) -> FloatArray:
    """Makes a seeded projection of pooled features that keeps distances.

    It is a randomised cosine transform: signs of the features are flipped at random, then the
    orthonormal DCT-II is taken and a random subset of its coefficients kept (Tropp, "Improved
    analysis of the subsampled randomized Hadamard transform", arXiv 1011.1595). Each entry is a
    table look-up, so that 5,504 x 4,096 takes a fraction of a second and is the same everywhere,
    where a QR decomposition takes seconds and differs with the linear algebra library.

    Args:
        features: Length of the pooled feature vector.
        size: Length of the embedding.
        seed: Any integer.

    Returns:
        (features, size) float32. Where `size` is smaller, its columns are orthogonal, all of
        length `sqrt(features / size)`, so that distances are kept on average, to about one per
        cent. Where it is not, its rows are orthonormal and distances are kept exactly.
    """
    longest = max(features, size)
    turns = np.arange(4 * longest) * (math.pi / (2 * longest))
    cosines = np.cos(turns).astype(np.float32)

    signs = 1.0 - 2.0 * (_stream(f"{EMBEDDING_KERNEL}/signs", seed).random_raw(features) >> 63)
    order = np.argsort(_stream(f"{EMBEDDING_KERNEL}/order", seed).random_raw(longest))
    rows = np.arange(features) if size <= features else np.sort(order[:features])
    columns = order[:size] if size <= features else np.arange(size)

    # The first coefficient of an orthonormal DCT-II is smaller than the others.
    norms = np.full(longest, math.sqrt(2.0 / longest), np.float32)
    norms[0] = math.sqrt(1.0 / longest)
    norms *= math.sqrt(max(1.0, features / size))
    kernel = np.empty((features, size), np.float32)
    for place, row in enumerate(rows):
        cosines.take((2 * row + 1) * columns % (4 * longest), out=kernel[place])
        kernel[place] *= norms[columns] * np.float32(signs[place])
    return kernel


def draw_uniform(name: str, shape: tuple[int, ...], *, std: float, seed: int) -> FloatArray:
    """Draws from a uniform distribution around zero, from a stream keyed by seed and name.

    Only the bit generator's raw output is used, whose stream NumPy guarantees; that of its
    distributions may change between versions (NEP 19).

    Args:
        name: Names the stream, so that the order of drawing does not matter.
        shape: Of the result.
        std: Standard deviation of the result.
        seed: Any integer.

    Returns:
        float32 array of that shape.
    """
    stream = _stream(name, seed)
    values = np.empty(math.prod(shape), np.float32)
    scale = np.float32(math.sqrt(3.0) * std / 2**31)
    # In pieces that memory is reused for: fresh pages cost more than the random numbers.
    for begin in range(0, values.size, _DRAWN_AT_ONCE):
        piece = values[begin : begin + _DRAWN_AT_ONCE]
        raw = stream.random_raw((piece.size + 1) // 2).view(np.int32)
        np.multiply(raw[: piece.size], scale, out=piece, casting="unsafe", dtype=np.float32)
    return values.reshape(shape)


def _stream(name: str, seed: int) -> np.random.PCG64:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.PCG64(int.from_bytes(digest, "little"))


def check_weights(
    architecture: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    embedding_size: int = 0,
) -> None:
    """Refuses weights that are not those of the architecture.

    Args:
        architecture: What is expected.
        shapes: Name to shape of what was found, in the names of `weight_layout`; tensors that
            belong nowhere under the names of their file.
        source: The file, for the message.
        embedding_size: Columns of the projection that is expected; 0 expects none.

    Raises:
        UsageError: With every kind of mismatch in one line: missing, unexpected, mis-shaped.
    """
    layout = weight_layout(architecture, embedding_size)
    missing = [name for name in layout if name not in shapes]
    unexpected = [name for name in shapes if name not in layout]
    misshaped = [
        f"{name} {tuple(shapes[name])} instead of {layout[name]}"
        for name in layout
        if name in shapes and tuple(shapes[name]) != layout[name]
    ]
    faults = [
        f"{len(found)} {kind} ({_shorten(found)})"
        for kind, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshaped),
        )
        if found
    ]
    if faults:
        raise UsageError(
            f"{source} does not hold the weights of {architecture.name}: tensors "
            f"{'; '.join(faults)}. Pass the --architecture that the file was made for."
        )


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_IN_AN_ERROR])
    rest = len(names) - _NAMES_IN_AN_ERROR
    return f"{shown} and {rest} more" if rest > 0 else shown
