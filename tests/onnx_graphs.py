"""Small real ONNX graphs, as other tools export them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Sizes = tuple[int | str | None, ...]

CHANNELS, SIZE = 8, 5


def weights(seed: int = 0, channels: int = 3, size: int = SIZE) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "kernel": random.standard_normal((CHANNELS, channels, 3, 3)).astype(np.float32),
        "matrix": random.standard_normal((CHANNELS, size)).astype(np.float32),
    }


def expected(images: np.ndarray, given: dict[str, np.ndarray]) -> np.ndarray:
    """What the graph of `save_graph` gives for (n, c, h, w), by another library."""
    import tensorflow as tf

    flow = tf.nn.conv2d(
        np.moveaxis(images.astype(np.float32), 1, -1),
        given["kernel"].transpose(2, 3, 1, 0),
        2,
        "VALID",
    )
    return (tf.reduce_mean(tf.nn.relu(flow), [1, 2]) @ given["matrix"]).numpy()


def save_graph(
    path: Path,
    shape: Sizes = ("batch", 3, 16, 16),
    dtype: int = TensorProto.FLOAT,
    *,
    layout: str = "NCHW",
    compute: int = TensorProto.FLOAT,
    output: Sizes | None = ("batch", SIZE),
    extra_outputs: dict[str, Sizes] | None = None,
    extra_inputs: dict[str, tuple[int, Sizes]] | None = None,
    data_file: str | None = None,
    given: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> Path:
    """Saves convolution, ReLU, average and matrix product.

    Args:
        path: the .onnx file.
        shape: of the input `image`; None and names are open sizes.
        dtype: of the input.
        layout: of the input.
        compute: type that the graph computes in.
        output: declared shape of the output `embedding`.
        extra_outputs: further outputs and their declared shapes; `maps` are the feature maps.
        extra_inputs: further inputs; each is added to the embedding as its mean.
        data_file: put the weights into this file beside the graph.
        given: the weights.
        opset: version of ONNX's operators.
    """
    channels = shape[1 if layout == "NCHW" else 3] if len(shape) == 4 else 3
    given = given or weights(channels=channels if isinstance(channels, int) else 3)
    nodes = []
    flow = "image"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [flow], ["first"], perm=[0, 3, 1, 2]))
        flow = "first"
    if dtype != compute:
        nodes.append(helper.make_node("Cast", [flow], ["cast"], to=compute))
        flow = "cast"
    nodes += [
        helper.make_node("Conv", [flow, "kernel"], ["convolved"], strides=[2, 2]),
        helper.make_node("Relu", ["convolved"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["averaged"]),
        helper.make_node("Flatten", ["averaged"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["product"]),
    ]
    flow = "product"
    for name, (kind, _) in (extra_inputs or {}).items():
        if kind != compute:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=compute))
        mean = f"{name}_mean"
        nodes.append(
            helper.make_node(
                "ReduceMean", [name if kind == compute else f"{name}_cast"], [mean], keepdims=0
            )
        )
        nodes.append(helper.make_node("Add", [flow, mean], [f"with_{name}"]))
        flow = f"with_{name}"
    nodes.append(helper.make_node("Identity", [flow], ["embedding"]))
    outputs = {"embedding": output, **(extra_outputs or {})}
    inputs = {"image": (dtype, shape), **(extra_inputs or {})}
    kind = helper.tensor_dtype_to_np_dtype(compute)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, compute, each) for name, each in outputs.items()],
        [numpy_helper.from_array(each.astype(kind), name) for name, each in given.items()],
    )
    return save(path, graph, data_file, opset=opset)


def save(path: Path, graph: Any, data_file: str | None = None, *, opset: int = 17) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / (data_file or "")).parent.mkdir(exist_ok=True)
    onnx.save_model(
        model, path, save_as_external_data=data_file is not None, location=data_file,
        size_threshold=0, all_tensors_to_one_file=True,
    )  # fmt: skip
    return path
