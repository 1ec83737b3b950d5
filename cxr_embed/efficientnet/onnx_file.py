"""Writes the reference network as an ONNX graph with its weights in a file beside it.

The graph is that of `cxr_embed.efficientnet.graph`, in ONNX's operators.
"""

from __future__ import annotations

import json
import math
from collections.abc import MutableMapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from cxr_embed.efficientnet.architecture import (
    EMBEDDING_KERNEL,
    Architecture,
    Block,
    Convolution,
    FloatArray,
    convolutions,
    expand_blocks,
)
from cxr_embed.efficientnet.folding import fold
from cxr_embed.models.onnx.graph_file import import_onnx

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
METADATA_KEY = "cxr_embed"

# What runtimes have supported since 2022.
_OPSET, _IR_VERSION = 17, 8
# Weights that begin at a page can be mapped into memory.
_PAGE = 4096


def write_onnx(
    folder: Path,
    architecture: Architecture,
    weights: MutableMapping[str, FloatArray],
    image_size: int,
    description: dict[str, Any],
) -> None:
    """Writes the network: `image` float32 [N, H, W, 3] in 0..1 to `embedding` float32 [N, size].

    Names and shapes are those of the SavedModel's `serving_default`.

    Args:
        folder: where the graph and its data file are written.
        architecture: the network.
        weights: arrays by name as in `weight_layout`. **This mapping is emptied**.
        image_size: side of the square input in pixels.
        description: stored as JSON in the graph's metadata.

    Raises:
        UsageError: the package `onnx` is not installed.
        OSError: the files cannot be written.
    """
    onnx = import_onnx()
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    size = weights[EMBEDDING_KERNEL].shape[1] if EMBEDDING_KERNEL in weights else None
    with (folder / DATA_FILE).open("wb") as data:
        writer = _Writer(onnx, data, architecture, weights)
        output = writer.network(image_size)
    image, vector = ["N", image_size, image_size, 3], ["N", size or architecture.features]
    graph = helper.make_graph(
        [*writer.nodes, helper.make_node("Identity", [output], ["embedding"])],
        architecture.name,
        [helper.make_tensor_value_info("image", single, image)],
        [helper.make_tensor_value_info("embedding", single, vector)],
        writer.tensors,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION,
        producer_name="cxr-embed", producer_version=description.get("cxr_embed_version") or "",
    )  # fmt: skip
    helper.set_model_props(model, {METADATA_KEY: json.dumps(description, sort_keys=True)})
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString(deterministic=True))


class _Writer:
    """Adds nodes to a graph, from input to output, and weights to its data file.

    Attributes:
        nodes: the nodes so far.
        tensors: the graph's constants so far.
    """

    def __init__(
        self,
        onnx: Any,
        data: IO[bytes],
        architecture: Architecture,
        weights: MutableMapping[str, FloatArray],
    ) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._onnx, self._data = onnx, data
        self._architecture, self._weights = architecture, weights
        self._convolutions = {item.name: item for item in convolutions(architecture)}

    def network(self, side: int) -> str:
        """Adds the whole network for images of a size; returns the name of its result."""
        norm = self._architecture.normalisation
        flow = self._add("Sub", ["image", self._small("mean", norm.mean)], "centred")
        scale = self._small("scale", [1.0 / std for std in norm.std])
        flow = self._add("Mul", [flow, scale], "normalised")
        flow = self._add("Transpose", [flow], "channels_first", perm=[0, 3, 1, 2])
        flow, side = self._convolve(flow, "stem", side, stride=2)
        flow = self._activate(flow)
        for block in expand_blocks(self._architecture):
            flow, side = self._block(block, flow, side)
        flow, _ = self._convolve(flow, "head", side)
        flow = self._add("GlobalAveragePool", [self._activate(flow)], "pooled")
        flow = self._add("Flatten", [flow], "features")
        if EMBEDDING_KERNEL in self._weights:
            kernel = self._stored(EMBEDDING_KERNEL, self._weights.pop(EMBEDDING_KERNEL))
            flow = self._add("MatMul", [flow, kernel], "projected")
        return flow

    def _block(self, block: Block, inputs: str, side: int) -> tuple[str, int]:
        flow = inputs
        if block.expansion != 1:
            flow = self._activate(self._convolve(flow, f"{block.name}/expand", side)[0])
        name = f"{block.name}/depthwise"
        flow, side = self._convolve(flow, name, side, stride=block.stride)
        flow = self._activate(flow)
        if block.squeeze_channels:
            gate = self._add("GlobalAveragePool", [flow], f"{block.name}/mean")
            gate = self._activate(self._convolve(gate, f"{block.name}/squeeze", 1)[0])
            gate = self._convolve(gate, f"{block.name}/excite", 1)[0]
            gate = self._add("Sigmoid", [gate], f"{block.name}/gate")
            flow = self._add("Mul", [flow, gate], f"{block.name}/gated")
        flow, _ = self._convolve(flow, f"{block.name}/project", side)
        if block.has_skip:
            flow = self._add("Add", [flow, inputs], f"{block.name}/sum")
        return flow, side

    def _convolve(self, inputs: str, name: str, side: int, stride: int = 1) -> tuple[str, int]:
        item = self._convolutions[name]
        kernel, bias = fold(item, self._weights, self._architecture.norm_epsilon)
        given = [
            inputs,
            self._stored(f"{name}/kernel", np.ascontiguousarray(_channels_first(item, kernel))),
            self._stored(f"{name}/bias", bias),
        ]
        output, pads = _same_padding(side, item.kernel[0], stride)
        options = {
            "kernel_shape": list(item.kernel[:2]),
            "strides": [stride, stride],
            "pads": pads,
            "group": item.out_channels if item.depthwise else 1,
        }
        return self._add("Conv", given, f"{name}/result", **options), output

    def _activate(self, inputs: str) -> str:
        if self._architecture.activation == "relu6":
            if not any(tensor.name == "zero" for tensor in self.tensors):
                self._small("zero", 0.0)
                self._small("six", 6.0)
            return self._add("Clip", [inputs, "zero", "six"], f"{inputs}/active")
        gate = self._add("Sigmoid", [inputs], f"{inputs}/sigmoid")
        return self._add("Mul", [inputs, gate], f"{inputs}/active")

    def _add(self, operator: str, inputs: list[str], output: str, **options: Any) -> str:
        node = self._onnx.helper.make_node(operator, inputs, [output], name=output, **options)
        self.nodes.append(node)
        return output

    def _small(self, name: str, value: Any) -> str:
        array = np.array(value, np.float32)
        self.tensors.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _stored(self, name: str, array: FloatArray) -> str:
        """Appends an array to the data file; the graph gets its place there."""
        begin = -(-self._data.tell() // _PAGE) * _PAGE
        self._data.write(b"\0" * (begin - self._data.tell()))
        self._data.write(array.astype("<f4", copy=False).data)
        tensor = self._onnx.TensorProto(
            name=name, dims=array.shape, data_type=self._onnx.TensorProto.FLOAT
        )
        tensor.data_location = tensor.EXTERNAL
        place = {"location": DATA_FILE, "offset": begin, "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        return name


def _channels_first(item: Convolution, kernel: FloatArray) -> FloatArray:
    """Returns TensorFlow's kernel in ONNX's order: (out, in, k, k), or (channels, 1, k, k)."""
    return kernel.transpose((2, 3, 0, 1) if item.depthwise else (3, 2, 0, 1))


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, list[int]]:
    """Returns the output's side and the padding of TensorFlow's "SAME".

    An odd pixel of padding is added at the bottom and right.
    """
    output = math.ceil(side / stride)
    total = max((output - 1) * stride + kernel - side, 0)
    before = total // 2
    return output, [before, before, total - before, total - before]
