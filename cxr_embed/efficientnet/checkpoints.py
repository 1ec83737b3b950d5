"""Published EfficientNet weights: which file holds them, under which names.

Read are timm's `tf_efficientnet_*` and efficientnet-pytorch's (`.safetensors`, `.pth`), the
TensorFlow checkpoints of the EfficientNet and Noisy Student authors, and our own, a `.safetensors`
file with the names and shapes of `weight_layout`, which may hold an `embedding/kernel`. timm's
`efficientnet_*` without `tf_` have the same shapes, but were trained with another padding and
batch norm epsilon, so they give other numbers here.
"""

from __future__ import annotations

import functools
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr_embed.efficientnet.architecture import (
    EMBEDDING_KERNEL,
    Architecture,
    Normalisation,
    weight_layout,
    with_normalisation,
)
from cxr_embed.efficientnet.checkpoint_names import (
    efficientnet_pytorch_names,
    tensorflow_names,
    timm_names,
)
from cxr_embed.efficientnet.safetensors_file import Array, Tensor, open_safetensors
from cxr_embed.efficientnet.weights import Weights, check_weights
from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.tensorflow.runtime import import_tensorflow

_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_EMA = "/ExponentialMovingAverage"
_TF_STEM = "/stem/conv2d/kernel"
_OUR_STEM, _EFFICIENTNET_PYTORCH_STEM = "stem/kernel", "_conv_stem.weight"


def read_weights(path: Path, architecture: Architecture) -> Weights:
    """Reads trained weights.

    Args:
        path: a `.safetensors` or `.pth` file of timm's or efficientnet-pytorch's, our own
            `.safetensors`, or a TensorFlow checkpoint: its prefix (`…/model.ckpt`), one of its
            files, or its folder. If timm's `config.json` lies beside
            the file, the normalisation is taken from there, else it is the architecture's own.
        architecture: what the file should hold.

    Returns:
        All weights of `weight_layout(architecture)`, and of ours the `embedding/kernel`, where the
        file holds one; a classifier in the file is left out.

    Raises:
        UsageError: no such file, another kind of file, or weights of another network.
    """
    prefix = _checkpoint_prefix(path)
    if prefix is not None:
        found = dict(_from_tensorflow(prefix, architecture))
    elif not path.is_file():
        raise UsageError(f"--weights {path}: no such file, nor a TensorFlow checkpoint")
    elif path.suffix == ".safetensors":
        found = dict(_from_tensors(open_safetensors(path), architecture))
        architecture = _as_configured(path, architecture)
    elif path.suffix in _TORCH_SUFFIXES:
        found = dict(_from_tensors(_read_torch(path), architecture))
        architecture = _as_configured(path, architecture)
    else:
        raise UsageError(
            f"--weights {path} is of an unknown kind: pass a .safetensors or .pth file, or a "
            "TensorFlow checkpoint"
        )
    shapes = {name: tensor.shape for name, tensor in found.items()}
    size = _embedding_size(shapes)
    check_weights(architecture, shapes, source=f"--weights {path}", embedding_size=size)
    arrays = {
        name: found[name].read().astype(np.float32, copy=False)
        for name in weight_layout(architecture, size)
    }
    return Weights(architecture, arrays, source=path.name, trained=True)


def _embedding_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    shape = shapes.get(EMBEDDING_KERNEL, ())
    return shape[-1] if shape else 0


def _from_tensors(
    tensors: Mapping[str, Tensor], architecture: Architecture
) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a file under our names; those of the file are one of three sets."""
    if _OUR_STEM in tensors:
        yield from tensors.items()
    elif _EFFICIENTNET_PYTORCH_STEM in tensors:
        yield from _from_torch(tensors, efficientnet_pytorch_names(architecture), "_fc.")
    else:
        yield from _from_torch(tensors, timm_names(architecture), "classifier.")


def _from_torch(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], classifier: str
) -> Iterator[tuple[str, Tensor]]:
    ours = {theirs: name for name, theirs in names.items()}
    for theirs, tensor in tensors.items():
        if theirs.startswith(classifier) or theirs.endswith(".num_batches_tracked"):
            continue
        name = ours.get(theirs, theirs)
        if name.endswith("/kernel") and len(tensor.shape) == 4:
            # PyTorch has (out, in, k, k), depthwise (channels, 1, k, k).
            axes = (2, 3, 0, 1) if name.endswith("/depthwise/kernel") else (2, 3, 1, 0)
            yield name, tensor.transposed(axes)
        else:
            yield name, tensor


def _from_tensorflow(prefix: str, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    tf = import_tensorflow()
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise UsageError(f"--weights {prefix} cannot be read: {one_line(error)}") from error
    scopes = [name.removesuffix(_TF_STEM) for name in shapes if name.endswith(_TF_STEM)]
    scope = f"{scopes[0]}/" if scopes else ""
    ours = {theirs: name for name, theirs in tensorflow_names(architecture).items()}
    for variable, shape in shapes.items():
        theirs = variable.removeprefix(scope)
        # Left out: averages (looked up below), optimiser slots, the step, and the classifier.
        if not variable.startswith(scope) or theirs.startswith("head/dense/"):
            continue
        if theirs.endswith((_EMA, "/RMSProp", "/RMSProp_1", "/Momentum")):
            continue
        # The authors evaluate the moving averages of the weights, not the last step's.
        best = variable + _EMA if variable + _EMA in shapes else variable
        yield (
            ours.get(theirs, theirs),
            Tensor(tuple(shape), functools.partial(reader.get_tensor, best)),
        )


def _checkpoint_prefix(path: Path) -> str | None:
    """Returns the prefix of the TensorFlow checkpoint that `path` means, if it means one."""
    if path.is_dir():
        indices = sorted(path.glob("*.index"))
        if len(indices) != 1:
            raise UsageError(
                f"--weights {path} is a folder with {len(indices)} TensorFlow checkpoints: "
                "pass the prefix of one, such as …/model.ckpt"
            )
        return str(indices[0].with_suffix(""))
    stem = path.name
    if path.suffix in (".index", ".meta") or ".data-" in stem:
        stem = stem.rpartition(".")[0]
    prefix = path.with_name(stem)
    return str(prefix) if prefix.with_name(f"{stem}.index").is_file() else None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"reading --weights {path} needs PyTorch: pip install 'cxr-embed[convert]', or pass "
            "the same weights as .safetensors"
        ) from error
    try:
        # weights_only: a pickle from the internet must not run code. Files from before PyTorch
        # 1.6 are no zip archives and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"--weights {path} holds more than tensors, or is damaged, and is not unpickled: "
            "pass a state dict, or the same weights as .safetensors"
        ) from error
    except Exception as error:
        raise UsageError(f"--weights {path} cannot be read: {one_line(error)}") from error
    # Training scripts wrap the weights, and may keep a moving average beside them.
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict):
        raise UsageError(f"--weights {path} holds no state dict of tensors")
    return {
        str(name).removeprefix("module."): Tensor(
            tuple(tensor.shape), functools.partial(_as_array, tensor)
        )
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor)
    }


def _as_array(tensor: Any) -> Array:
    array: Array = tensor.detach().float().numpy()
    return array


def _as_configured(path: Path, architecture: Architecture) -> Architecture:
    """Applies timm's `config.json`, where it lies beside the weights as on Hugging Face."""
    try:
        config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        name = str(config["architecture"])
        red, green, blue = (float(value) for value in config["pretrained_cfg"]["mean"])
        mean = (red, green, blue)
        red, green, blue = (float(value) for value in config["pretrained_cfg"]["std"])
        normalisation = Normalisation(mean, (red, green, blue))
    except (OSError, ValueError, KeyError, TypeError):
        return architecture
    if not name.startswith("tf_efficientnet"):
        raise UsageError(
            f"--weights {path} is timm's {name} by its config.json, which pads images "
            "differently: pass a tf_efficientnet model"
        )
    return with_normalisation(architecture, normalisation)
