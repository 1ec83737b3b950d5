"""EfficientNets as others have written them, with weights that are given to theirs and to ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cxr_embed.efficientnet.architecture import (
    ARCHITECTURES,
    Architecture,
    Normalisation,
    convolutions,
    expand_blocks,
    weight_layout,
    with_normalisation,
)
from cxr_embed.efficientnet.checkpoint_names import timm_names
from cxr_embed.efficientnet.safetensors_file import open_safetensors, write_safetensors
from cxr_embed.efficientnet.weights import draw_uniform, random_weights

Weights = dict[str, np.ndarray]

_KERAS_NORM = ("gamma", "beta", "mean", "variance")  # in the order of Keras's set_weights


def arbitrary_weights(architecture: Architecture) -> Weights:
    """Every number random, batch norm's and the biases too, with a signal that stays alive."""
    source = np.random.default_rng(7)
    weights = {}
    for name, shape in weight_layout(architecture).items():
        if name.endswith("/kernel"):
            fan_in = np.prod(shape[:2]) if "/depthwise/" in name else np.prod(shape[:3])
            values = source.normal(0.0, np.sqrt(2.0 / fan_in), shape)
        elif name.endswith(("/variance", "/gamma")):
            values = source.uniform(0.5, 1.5, shape)
        else:
            values = source.normal(0.0, 0.3, shape)
        weights[name] = values.astype(np.float32)
    return weights


def disturbed_reference_weights(architecture: Architecture, size: int) -> Weights:
    """The reference's weights, which stay alive in a network of any depth, no number a constant."""
    weights = random_weights(architecture, image_size=size).arrays
    for name, array in weights.items():
        if not name.endswith("/kernel"):
            noise = draw_uniform(f"{name}/noise", array.shape, std=0.05, seed=1)
            # A variance may be tiny, and has to stay positive.
            weights[name] = array * (1 + noise) if name.endswith("/variance") else array + noise
    return weights


def ours(architecture: Architecture, weights: Weights, *batches: np.ndarray) -> list[np.ndarray]:
    """Runs our network, using the weights up, on pixels in 0..1 that are not normalised."""
    from cxr_embed.efficientnet.graph import FoldedEfficientNet

    plain = with_normalisation(architecture, Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    network = FoldedEfficientNet(plain, weights)
    return [network(images).numpy() for images in batches]


def _keras_names(architecture: Architecture, convolution: str) -> tuple[str, str]:
    """Names of Keras's convolution and batch norm layers."""
    if convolution in ("stem", "head"):
        part = {"stem": "stem", "head": "top"}[convolution]
        return f"{part}_conv", f"{part}_bn"
    prefix, _, step = convolution.rpartition("/")
    block = next(block for block in expand_blocks(architecture) if block.name == prefix)
    theirs = f"block{block.stage + 1}{chr(ord('a') + block.index)}_"
    return {
        "expand": (f"{theirs}expand_conv", f"{theirs}expand_bn"),
        "depthwise": (f"{theirs}dwconv", f"{theirs}bn"),
        "squeeze": (f"{theirs}se_reduce", ""),
        "excite": (f"{theirs}se_expand", ""),
        "project": (f"{theirs}project_conv", f"{theirs}project_bn"),
    }[step]


def keras_network(architecture: Architecture, size: int, weights: Weights) -> Any:
    """Keras's own generator, the one behind its EfficientNetB0, with our weights."""
    from keras.src.applications.efficientnet import EfficientNet

    # Keras walks a network recursively, and L2 is some 1,000 layers deep.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    network = EfficientNet(
        architecture.width, architecture.depth, size, include_top=False, weights=None,
        pooling="avg", input_shape=(size, size, 3), name="theirs",
    )  # fmt: skip
    for item in convolutions(architecture):
        convolution, norm = _keras_names(architecture, item.name)
        kernel = weights[f"{item.name}/kernel"]
        if item.normalised:
            network.get_layer(convolution).set_weights([kernel])
            network.get_layer(norm).set_weights(
                [weights[f"{item.name}/norm/{part}"] for part in _KERAS_NORM]
            )
        else:
            network.get_layer(convolution).set_weights([kernel, weights[f"{item.name}/bias"]])
    return network


def run_keras(network: Any, images: np.ndarray) -> np.ndarray:
    """Keras divides by 255 itself; its Normalization layer, not adapted, is the identity."""
    return np.asarray(network(images * np.float32(255.0), training=False))


def run_timm(
    architecture: Architecture, weights: Weights, batches: list[np.ndarray], folder: Path
) -> list[np.ndarray]:
    """Runs timm's `tf_efficientnet_*` with our weights, down to the pooled features.

    In a process of its own: torchvision, which timm imports, and TensorFlow may each bring their
    own copy of a library, and crash in one process.
    """
    write_safetensors(folder / "weights.safetensors", weights)
    np.savez(folder / "images.npz", *batches)
    program = Path(__file__)
    subprocess.run(
        [sys.executable, str(program), architecture.name, str(folder)], check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    (folder / "weights.safetensors").unlink()
    with np.load(folder / "features.npz") as features:
        return list(features.values())


def _run_timm_here(name: str, folder: Path) -> None:
    import timm
    import torch

    architecture = ARCHITECTURES[name]
    tensors = open_safetensors(folder / "weights.safetensors")
    weights = {name: tensor.read() for name, tensor in tensors.items()}
    network = timm.create_model(f"tf_{name.replace('-', '_')}", pretrained=False, num_classes=0)
    state = {
        theirs: torch.from_numpy(_as_torch(ours, weights[ours]))
        for ours, theirs in timm_names(architecture).items()
    }
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict(state | counters, strict=True, assign=True)
    with np.load(folder / "images.npz") as images:
        features = [run_torch(network.eval(), batch) for batch in images.values()]
    np.savez(folder / "features.npz", *features)


def _as_torch(name: str, array: np.ndarray) -> np.ndarray:
    """(k, k, in, out) to (out, in, k, k); depthwise (k, k, c, 1) to (c, 1, k, k)."""
    if array.ndim != 4:
        return array.copy()
    axes = (2, 3) if "/depthwise/" in name else (3, 2)
    return np.ascontiguousarray(np.moveaxis(array, axes, (0, 1)))


def run_torch(network: Any, images: np.ndarray) -> np.ndarray:
    """Runs a PyTorch network on NHWC images as they are."""
    import torch

    with torch.inference_mode():
        result: np.ndarray = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    return result


if __name__ == "__main__":
    _run_timm_here(sys.argv[1], Path(sys.argv[2]))
