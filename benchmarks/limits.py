"""What a network asks of a machine and what the machine can give: operations and bytes.

The peaks are measured, not looked up: the product of two large matrices for the arithmetic, and a
sum over arrays that fit no cache for the memory.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr_embed.efficientnet.architecture import Architecture, convolutions, expand_blocks

_MATRIX, _WORDS = 4096, 2**28


class Needs(NamedTuple):
    """What one image asks for: multiply-adds, of those in depthwise convolutions, and floats moved.

    Floats moved are what a network without any fusing reads and writes: each convolution's input
    and output, each activation's, and the weights.
    """

    macs: float
    depthwise_macs: float
    floats: float


def needs(architecture: Architecture, size: int) -> Needs:
    """Returns what an image of `size` x `size` pixels asks for."""
    blocks = {block.name: block for block in expand_blocks(architecture)}
    macs = depthwise = floats = 0.0
    side = size
    for item in convolutions(architecture):
        block = blocks.get(item.name.rpartition("/")[0])
        step = item.name.rpartition("/")[2]
        before = side
        if item.name == "stem":
            side = -(-side // 2)
        elif step == "depthwise" and block is not None:
            side = -(-side // block.stride)
        places = 1 if step in ("squeeze", "excite") else side * side
        count = float(np.prod(item.kernel)) * places
        macs += count
        depthwise += count * item.depthwise
        into = item.kernel[2] * (1 if places == 1 else before * before)
        floats += into + item.out_channels * places + float(np.prod(item.kernel))
        if item.name in ("stem", "head") or step in ("expand", "depthwise"):
            floats += 2 * item.out_channels * places  # swish
        if step == "excite":
            floats += 2 * item.out_channels * side * side  # the product with it
    return Needs(macs, depthwise, floats)


def matrix_peak(rounds: int = 5) -> float:
    """Returns the float32 operations a second of a large matrix product, by the faster of two."""
    import tensorflow as tf

    numbers = np.random.default_rng(0).random((_MATRIX, _MATRIX), np.float32)
    tensor = tf.constant(numbers)
    ways: list[Callable[[], object]] = [
        lambda: numbers @ numbers,
        lambda: tf.linalg.matmul(tensor, tensor).numpy(),
    ]
    return 2 * _MATRIX**3 / min(median_seconds(way, rounds) for way in ways)


def memory_peak(rounds: int = 5) -> float:
    """Returns bytes a second that are read and written by `a += b` on all cores."""
    import tensorflow as tf

    a, b = tf.Variable(tf.zeros(_WORDS)), tf.ones(_WORDS)
    return 3 * 4 * _WORDS / median_seconds(lambda: a.assign_add(b), rounds)


def median_seconds(way: Callable[[], object], rounds: int) -> float:
    """Returns the median time of some calls, after one that does not count."""
    way()
    times = []
    for _ in range(rounds):
        since = time.perf_counter()
        way()
        times.append(time.perf_counter() - since)
    return statistics.median(times)


def onnx_profile(graph: str, images: np.ndarray, folder: Path) -> dict[str, float]:
    """Returns the share of the time of each kind of operation, by ONNX Runtime's own profiler."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for image in images:
        session.run(None, {name: image[np.newaxis]})
    spent: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[_kind(event["name"], event["args"]["op_name"])] += event["dur"]
    return {kind: time / spent.total() for kind, time in spent.most_common()}


def _kind(name: str, operator: str) -> str:
    if "Conv" in operator:
        return "depthwise convolutions" if "depthwise" in name else "other convolutions"
    if operator in ("Sigmoid", "Mul", "QuickGelu", "Silu"):
        return "activations and products"
    return "reordering" if operator.startswith("Reorder") else "all else"
