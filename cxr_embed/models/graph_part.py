"""What is run of a loaded SavedModel: one function with inputs by name and one result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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

    @property
    def result_index(self) -> int:
        """Where its result stands among the function's flat outputs."""
        return 0 if self.output is None else sorted(self.function.structured_outputs).index(
            self.output
        )

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Runs it on tensors by name."""
        if self.output is None:
            return self.function(*(inputs[name] for name in self.names))[0]
        return self.function(**inputs)[self.output]
