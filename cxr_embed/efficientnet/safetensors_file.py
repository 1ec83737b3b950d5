"""Reads and writes `.safetensors` files with the package safetensors.

The package writes the memory of an array as it lies there, so that an array that is not
contiguous comes out with its values in another order, and it reads bfloat16 only where ml_dtypes
is imported. Both are dealt with here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy; TensorFlow depends on it
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cxr_embed.errors import UsageError, one_line

Array = npt.NDArray[Any]


class Tensor(NamedTuple):
    """One tensor of a file, which is not necessarily read yet.

    Attributes:
        shape: of the array.
        read: reads the array.
    """

    shape: tuple[int, ...]
    read: Callable[[], Array]

    def transposed(self, axes: tuple[int, ...]) -> Tensor:
        """Returns the tensor with its axes in another order, as `numpy.transpose` takes them."""
        shape = tuple(self.shape[axis] for axis in axes)
        return Tensor(shape, lambda: self.read().transpose(axes))


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """Opens a file and reads its header, but no tensor.

    Args:
        path: the file.

    Returns:
        Tensors by name. Reading one raises UsageError if NumPy has no type for its values.

    Raises:
        UsageError: the file is not a complete `.safetensors` file.
    """
    try:
        file = safe_open(path, "np")
        return {
            name: Tensor(
                tuple(file.get_slice(name).get_shape()),
                functools.partial(_read, path, file, name),
            )
            for name in file.keys()  # noqa: SIM118  it is no mapping
        }
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"--weights {path} is no whole .safetensors file: {one_line(error)}"
        ) from error


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Writes float32 arrays by name.

    The names and shapes that `read_weights` accepts are those of `weight_layout`.

    Raises:
        SafetensorError: the file cannot be written.
    """
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


def _read(path: Path, file: Any, name: str) -> Array:
    try:
        array: Array = file.get_tensor(name)
    except (SafetensorError, TypeError, AttributeError) as error:  # a type that NumPy lacks
        raise UsageError(
            f"--weights {path}: tensor {name} cannot be read: {one_line(error)}"
        ) from error
    return array
