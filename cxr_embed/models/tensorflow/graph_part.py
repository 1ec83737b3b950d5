"""The part of a loaded SavedModel that is run: a function with named inputs and one result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cxr_embed.models.tensorflow.runtime import import_tensorflow


@dataclass(frozen=True)
class GraphPart:
    """A signature, or the part of a TensorFlow 1 graph between two tensors.

    Attributes:
        function: the ConcreteFunction.
        names: names of the inputs, in the order of the function's flat arguments.
        output: key of the result if the function returns a dictionary, else None.
        further: keys of further results; if the function returns a list, names for them.
    """

    function: Any
    names: tuple[str, ...]
    output: str | None = None
    further: tuple[str, ...] = ()

    @property
    def takes_strings(self) -> bool:
        """Whether the first input has dtype string."""
        return bool(self.function.inputs[0].dtype.name == "string")

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Runs the function on tensors by name; returns a tuple if there are further results."""
        if self.output is None:
            results = self.function(*(inputs[name] for name in self.names))
            return tuple(results) if self.further else results[0]
        results = self.function(**inputs)
        if self.further:
            return tuple(results[name] for name in (self.output, *self.further))
        return results[self.output]

    def rebuilt(self, change: Callable[[Any], None] = lambda _: None) -> Callable[..., Any]:
        """Rebuilds the function from its GraphDef.

        The rebuilt function accepts other input shapes than those that the original was saved
        with.

        Args:
            change: modifies the GraphDef before it is imported.

        Returns:
            A `tf.function` that is called like this part.
        """
        tf = import_tensorflow()
        definition = self.function.graph.as_graph_def()
        change(definition)
        _register(definition.library.function)
        names = [tensor.name for tensor in self.function.inputs]
        outputs = [tensor.name for tensor in self.function.outputs]
        if self.output:  # the flat outputs are the dictionary's entries, sorted by key
            keys = sorted(self.function.structured_outputs)
            outputs = [outputs[keys.index(name)] for name in (self.output, *self.further)]
        else:
            outputs = outputs[: 1 + len(self.further)]

        def call(inputs: dict[str, Any]) -> Any:
            graph = tf.compat.v1.get_default_graph()
            # Under a strategy, a weight has one variable per device; `handle` is this replica's.
            captured = [getattr(item, "handle", item) for item in self.function.captured_inputs]
            given = [inputs[name] for name in self.names]
            tensors = [graph.capture(tensor) for tensor in [*given, *captured]]
            feeds = dict(zip(names, tensors, strict=True))
            results = tf.graph_util.import_graph_def(
                definition, input_map=feeds, return_elements=outputs, name=""
            )
            return tuple(results) if self.further else results[0]

        return tf.function(call)


def _register(functions: Iterable[Any]) -> None:
    """Registers functions in the process; importing a graph registers them in that graph only.

    TensorFlow has no public function for this. `tf.saved_model.load` makes the same call.
    """
    from tensorflow.python.eager import context

    for function in functions:
        context.context().add_function_def(function)
