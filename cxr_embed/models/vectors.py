"""How a model's output becomes one vector per image, and how long the vector is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.faults import machine_fault
from cxr_embed.models import inputs
from cxr_embed.models.config import ModelConfig, NamedOutput
from cxr_embed.models.signature import TensorSpec, Wiring
from cxr_embed.outcomes import Stage
from cxr_embed.radiograph import Radiograph

T = TypeVar("T")
Fit: TypeAlias = Callable[[Radiograph], Any]
Call: TypeAlias = Callable[[list[Any]], T]


def as_vectors(values: np.ndarray, pooling: str | None, layout: str = "NHWC") -> np.ndarray:
    """Reduces an output to one vector per image, as the config's `output.pooling` says.

    Args:
        values: the output, of shape (n, ...).
        pooling: `flatten`, `mean`, or None to leave the output as it is.
        layout: of feature maps; `NCHW` averages over the last two of four axes.
    """
    if pooling == "mean":
        return values.mean(_averaged_axes(values.ndim, layout), dtype=np.float32)
    return values.reshape(len(values), -1) if pooling else values


def _averaged_axes(rank: int, layout: str) -> tuple[int, ...]:
    return (2, 3) if layout == "NCHW" and rank == 4 else tuple(range(1, rank - 1))


def embedding_size(wiring: Wiring, config: ModelConfig, layout: str = "NHWC") -> int | None:
    """Returns the floats per embedding if the signature fixes them, else None.

    Args:
        wiring: how the model is called.
        config: says how its output becomes a vector.
        layout: of feature maps, as for `as_vectors`.

    Raises:
        UsageError: the output is not one vector per image, or not of the config's size.
    """
    size = vector_size(wiring.output_name, wiring.output, config.pooling, layout)
    check_embedding_size(size, config)
    return size


def vector_size(name: str, spec: TensorSpec, pooling: str | None, layout: str) -> int | None:
    """Returns the floats per image of `as_vectors` if an output's shape fixes them, else None.

    Raises:
        UsageError: the output is not one vector per image.
    """
    if spec.shape is None:
        return None
    if len(spec.shape) < 2 or (len(spec.shape) != 2 and pooling is None):
        raise UsageError(not_a_vector(name, str(spec)))
    gone = _averaged_axes(len(spec.shape), layout) if pooling == "mean" else ()
    sizes = [size for axis, size in enumerate(spec.shape) if axis and axis not in gone]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def not_a_vector(name: str, found: str) -> str:
    """Returns the error message for an output that is not one vector per image."""
    return (
        f"the model's output {name} is {found}, not one vector an image [N, size]: name another "
        "output in a --model_config, or set output.pooling there"
    )


def check_embedding_size(size: int | None, config: ModelConfig | NamedOutput) -> None:
    """Raises UsageError if a model's embedding size differs from its config."""
    if size is not None and config.embedding_size not in (None, size):
        raise UsageError(
            f"the model gives embeddings of {size} floats, but embedding_size in the model config "
            f"is {config.embedding_size}"
        )


def measured_embedding_size(fit: Fit, embed: Call[np.ndarray], output_name: str) -> int:
    """Returns the embedding size of a model that is being loaded, after running it once.

    Args:
        fit: the model's.
        embed: the model's.
        output_name: its output, for messages.

    Raises:
        UsageError: it does not give one vector per image; and as `run_once`.
    """
    vectors = run_once(fit, embed)
    if vectors.ndim != 2:
        raise UsageError(not_a_vector(output_name, f"of shape {list(vectors.shape)}"))
    return int(vectors.shape[1])


def run_once(fit: Fit, call: Call[T]) -> T:
    """Runs a model on an example image; returns what `call` gives.

    Raises:
        UsageError: the model cannot be run.
        MachineFault: there is not enough memory, or the device fails.
    """
    try:
        return call([fit(inputs.example_radiograph())])
    except Exception as error:
        if fault := machine_fault(error, Stage.INFER):
            raise fault from error
        raise UsageError(f"the model cannot be run: {one_line(error)}") from error
