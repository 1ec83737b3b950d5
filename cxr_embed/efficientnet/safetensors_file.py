"""Reads and writes `.safetensors` files with NumPy alone; reads without copying.

Format: https://huggingface.co/docs/safetensors, section "Format": eight bytes with the length of a
JSON header, the header, then the tensors' bytes, little endian and row-major.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_embed.errors import UsageError, one_line

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_BFLOAT16 = "BF16"
_LENGTH_BYTES = 8
_ALIGNMENT = 8
# The format's own limit.
_LARGEST_HEADER = 100_000_000


def read_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Maps a file into memory.

    Args:
        path: the file.

    Returns:
        Name to read-only array; bfloat16 ones are copied to float32.

    Raises:
        UsageError: it is not such a file, or is cut short.
    """
    try:
        content = np.memmap(path, np.uint8, mode="r")
        length = int.from_bytes(content[:_LENGTH_BYTES].tobytes(), "little")
        if not 0 < length <= min(_LARGEST_HEADER, content.size - _LENGTH_BYTES):
            raise ValueError("its header has no valid length")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes())
        body = content[_LENGTH_BYTES + length :]
        return {
            name: _view(body, name, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--weights {path} is no whole .safetensors file: {one_line(error)}"
        ) from error


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Writes float32 arrays by name, as they are: `check_weights` says what a reader expects.

    Raises:
        OSError: it cannot be written.
    """
    header, end = {}, 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").data)


def _view(body: npt.NDArray[np.uint8], name: str, entry: dict[str, Any]) -> npt.NDArray[Any]:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    kind = entry["dtype"]
    dtype = np.dtype("<u2" if kind == _BFLOAT16 else _DTYPES[kind])
    if not 0 <= begin <= end <= body.size or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name} lies outside of the file")
    values = body[begin:end].view(dtype).reshape(shape)
    if kind == _BFLOAT16:
        # bfloat16 is the upper half of a float32.
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values
