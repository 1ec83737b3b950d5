"""What is run of a loaded SavedModel: one function with inputs by name and one result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cxr_embed.models.tensorflow.runtime import import_tensorflow


@dataclass(frozen=True)
class GraphPart:
    """A signature, or what lies between two tensors of a TensorFlow 1 graph.

    Attributes:
        function: the ConcreteFunction.
        names: its inputs in the order of its flat arguments.
        output: key of its result, for a function that returns a dictionary; else None.
    """

    function: Any
    names: tuple[str, ...]
    output: str | None = None

    @property
    def takes_strings(self) -> bool:
        """Whether its first input is of strings."""
        return bool(self.function.inputs[0].dtype.name == "string")

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Runs it on tensors by name."""
        if self.output is None:
            return self.function(*(inputs[name] for name in self.names))[0]
        return self.function(**inputs)[self.output]

    def rebuilt(self, change: Callable[[Any], None] = lambda _: None) -> Callable[..., Any]:
        """Returns it built anew from its definition.

        What is built anew fits the shapes that it gets, where the original insists on those that
        it was saved with.

        Args:
            change: changes the GraphDef first.

        Returns:
            A `tf.function` of tensors by name, to be called like this part.
        """
        tf = import_tensorflow()
        definition = self.function.graph.as_graph_def()
        change(definition)
        _register(definition.library.function)
        names = [tensor.name for tensor in self.function.inputs]
        outputs = [tensor.name for tensor in self.function.outputs]
        # A dictionary's entries are the flat outputs in the order of their keys.
        place = sorted(self.function.structured_outputs).index(self.output) if self.output else 0

        def call(inputs: dict[str, Any]) -> Any:
            graph = tf.compat.v1.get_default_graph()
            # Under a strategy a weight is one variable a device: its handle is this replica's.
            captured = [getattr(item, "handle", item) for item in self.function.captured_inputs]
            given = [inputs[name] for name in self.names]
            tensors = [graph.capture(tensor) for tensor in [*given, *captured]]
            feeds = dict(zip(names, tensors, strict=True))
            return tf.graph_util.import_graph_def(
                definition, input_map=feeds, return_elements=outputs[place : place + 1], name=""
            )[0]

        return tf.function(call)


def _register(functions: Iterable[Any]) -> None:
    """Makes functions known to the process; importing a graph makes them known to that graph only.

    There is no public call for it: this is what `tf.saved_model.load` itself does.
    """
    from tensorflow.python.eager import context

    for function in functions:
        context.context().add_function_def(function)
