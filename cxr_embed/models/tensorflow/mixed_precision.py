"""Rewrites a graph so that matrix products run in bfloat16 and all other ops in float32.

TensorFlow's own rewriter supports bfloat16 on CPUs only. On GPUs it uses float16, whose range the
activations of a deep network may exceed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from cxr_embed.models.tensorflow.graph_part import GraphPart
from cxr_embed.models.tensorflow.runtime import import_tensorflow

# The ops that tensor cores support, which take nearly all of the time, and their outputs' names.
# Depthwise convolutions are bound by memory, and sums over many values need float32.
_PRODUCTS = {
    "Conv2D": "output",
    "MatMul": "product",
    "BatchMatMul": "output",
    "BatchMatMulV2": "output",
}

# All functions of a process share one name space, so each rewritten graph gets unique names.
_graphs = itertools.count()


def in_bfloat16(part: GraphPart) -> Callable[..., Any]:
    """Returns a part of a graph with its float32 products in bfloat16.

    The operands are cast to bfloat16 and the results back to float32. The weights are stored in
    float32 and are cast at each call.

    Args:
        part: the part to rewrite.

    Returns:
        A `tf.function` that is called like `part`.
    """
    return part.rebuilt(_rewrite)


def _rewrite(definition: Any) -> None:
    """Rewrites a GraphDef and the functions of its library in place."""
    suffix = f"_bfloat16_{next(_graphs)}"
    renamed = {f.signature.name: f.signature.name + suffix for f in definition.library.function}
    _halve_products(definition.node, in_function=False)
    _rename_calls(definition.node, renamed)
    for function in definition.library.function:
        moved = _halve_products(function.node_def, in_function=True)
        for key, value in function.ret.items():
            function.ret[key] = moved.get(value, value)
        function.signature.name = renamed[function.signature.name]
        _rename_calls(function.node_def, renamed)


def _halve_products(nodes: Any, *, in_function: bool) -> dict[str, str]:
    """Adds casts around each float32 product.

    The final cast takes the product's name, so that its consumers need no change. Within functions,
    a consumer also names the output, as `node:output:0`; these references are renamed.

    Returns:
        The new names of renamed outputs by their old names.
    """
    tf = import_tensorflow()
    single, half = tf.float32.as_datatype_enum, tf.bfloat16.as_datatype_enum
    cast_output = ":y:0" if in_function else ""
    moved: dict[str, str] = {}
    for node in [node for node in nodes if node.op in _PRODUCTS and node.attr["T"].type == single]:
        name, output = node.name, f":{_PRODUCTS[node.op]}:0" if in_function else ""
        for place in (0, 1):
            cast = _add_cast(nodes, f"{name}/operand_{place}", single, half)
            cast.input.append(node.input[place])
            node.input[place] = cast.name + cast_output
        node.name, node.attr["T"].type = f"{name}/product", half
        _add_cast(nodes, name, half, single).input.append(node.name + output)
        if in_function:
            moved[name + output] = name + cast_output
    for node in nodes:
        for place, source in enumerate(node.input):
            node.input[place] = moved.get(source, source)
    return moved


def _add_cast(nodes: Any, name: str, source: int, target: int) -> Any:
    cast = nodes.add(name=name, op="Cast")
    cast.attr["SrcT"].type, cast.attr["DstT"].type = source, target
    return cast


def _rename_calls(nodes: Iterable[Any], renamed: dict[str, str]) -> None:
    for node in nodes:
        node.op = renamed.get(node.op, node.op)
        for value in node.attr.values():
            called = [value.func] if value.HasField("func") else list(value.list.func)
            for function in called:
                function.name = renamed.get(function.name, function.name)
