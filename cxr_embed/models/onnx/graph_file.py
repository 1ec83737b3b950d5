"""Reads what an .onnx file says of itself: inputs, outputs, types, and the data files it needs."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_embed.errors import UsageError, cannot_be_read, one_line
from cxr_embed.models.signature import TensorSpec

_FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class GraphFacts:
    """What a graph's file says.

    Attributes:
        inputs: the inputs that must be given, by name.
        defaults: the inputs that have a default value (an initializer), by name.
        outputs: the outputs by name.
        data_files: the files with external data, relative to the graph's folder, each with the
            bytes that the graph needs of it.
        float_type: the float type of most weights, such as `float32`.
    """

    inputs: dict[str, TensorSpec]
    defaults: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    data_files: dict[str, int]
    float_type: str


def import_onnx() -> Any:
    """Imports the package `onnx`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise needs_extra() from error
    return onnx


def needs_extra() -> UsageError:
    """Returns the error of a missing package."""
    return UsageError("ONNX models need the optional extra: pip install 'cxr-embed[onnx]'")


def read_graph(path: str | Path) -> GraphFacts:
    """Reads a graph's file without its data files.

    Raises:
        UsageError: the file cannot be read or is not an ONNX graph, or the extra is missing.
    """
    import_onnx()
    try:
        state = Path(path).stat()
    except OSError as error:
        raise cannot_be_read(f"--model_path {path}", error) from error
    # Cached: the launcher asks several times, and a graph with its weights in it may have 2 GB.
    return _read(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read(path: str, size: int, changed: int) -> GraphFacts:
    del size, changed
    onnx = import_onnx()
    try:
        model = onnx.load(path, load_external_data=False)
        graph = model.graph
        tensors = list(_tensors(graph))
        for function in model.functions:
            tensors += _tensors(function)
        initial = {each.name for each in graph.initializer}
        initial |= {each.values.name for each in graph.sparse_initializer}
        inputs = {each.name: _spec(each) for each in graph.input}
        facts = GraphFacts(
            inputs={name: spec for name, spec in inputs.items() if name not in initial},
            defaults={name: spec for name, spec in inputs.items() if name in initial},
            outputs={each.name: _spec(each) for each in graph.output},
            data_files=_data_files(path, tensors),
            float_type=_float_type(tensors, inputs),
        )
    except UsageError:
        raise
    except OSError as error:
        raise cannot_be_read(f"--model_path {path}", error) from error
    except Exception as error:
        raise UsageError(
            f"--model_path {path} is damaged or is not an ONNX graph: {one_line(error)}"
        ) from error
    if not facts.outputs:
        raise UsageError(
            f"--model_path {path} is damaged or is not an ONNX graph: it has no outputs"
        )
    return facts


def _tensors(body: Any) -> Iterator[Any]:
    """Yields every constant of a graph or function, those of its inner graphs included."""
    for each in getattr(body, "initializer", ()):
        yield each
    for each in getattr(body, "sparse_initializer", ()):
        yield from (each.values, each.indices)
    for node in body.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)


def _spec(value: Any) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorSpec(str(kind or "unknown").removesuffix("_type"), None)
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        # An open size has a name (dim_param) or nothing; some exporters write 0 or -1.
        shape = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    return TensorSpec(_type_name(tensor.elem_type), shape)


def _type_name(number: int) -> str:
    onnx = import_onnx()
    if number == onnx.TensorProto.STRING:
        return "string"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, ValueError):
        return "unknown"


def _data_files(path: str, tensors: list[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in tensors:
        if tensor.data_location != tensor.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = PurePosixPath(entries.get("location", ""))
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise UsageError(
                f"--model_path {path} names the data file {str(name)!r}, which is not below its "
                "folder"
            )
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        found[str(name)] = max(end, found.get(str(name), 0))
    return found


def _float_type(tensors: list[Any], inputs: dict[str, TensorSpec]) -> str:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        size = 1
        for axis in tensor.dims:
            size *= axis
        counts[_type_name(tensor.data_type)] += size
    floats = {name: count for name, count in counts.items() if name in _FLOATS and count}
    if floats:
        return max(floats, key=lambda name: floats[name])
    return next((spec.dtype for spec in inputs.values() if spec.dtype in _FLOATS), "float32")
