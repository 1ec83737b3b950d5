"""Batches of embeddings: made in a thread, read by TensorFlow in place.

Otherwise TensorFlow copies each batch once more, while the next step waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from cxr_embed.models.tensorflow.runtime import import_tensorflow

# Eigen's kernels assume it of every tensor.
_ALIGNMENT = 64
_BATCHES_AHEAD = 2


def ahead(
    fill: Callable[[np.ndarray, np.ndarray], object], groups: Sequence[np.ndarray], columns: int
) -> Iterator[Any]:
    """Yields a tensor for each group of rows, made while earlier ones are in use.

    Args:
        fill: writes some rows' values, float32 (len(rows), columns), to an array.
        groups: the rows (n,) of each batch.
        columns: of a batch.

    Yields:
        Float32 (n, columns), on the CPU. It is valid until the next one is asked for.
    """
    size = max(map(len, groups), default=0)
    # Those that wait or are being filled, and the one in use.
    buffers = [_empty_aligned(size, columns) for _ in range(_BATCHES_AHEAD + 1)]
    waiting: deque[Future[Any]] = deque()

    def make(number: int) -> Any:
        part = buffers[number % len(buffers)][: len(groups[number])]
        fill(groups[number], part)
        return _as_tensor(part)

    with ThreadPoolExecutor(1) as pool:
        for number in range(len(groups)):
            waiting.append(pool.submit(make, number))
            if len(waiting) > _BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _empty_aligned(rows: int, columns: int) -> np.ndarray:
    """Returns an array with any content, float32 (rows, columns)."""
    size = rows * columns * 4
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(rows, columns)


def _as_tensor(array: np.ndarray) -> Any:
    """Returns a tensor that reads the first rows of an `_empty_aligned` array."""
    return import_tensorflow().experimental.dlpack.from_dlpack(array.__dlpack__())
