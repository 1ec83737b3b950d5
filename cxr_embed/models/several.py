"""Makes one vector of several outputs of a model, in which their embeddings follow each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.models.config import ModelConfig, NamedOutput
from cxr_embed.models.outputs import chain, place_of
from cxr_embed.models.signature import TensorSpec, Wiring
from cxr_embed.models.vectors import (
    as_vectors,
    check_embedding_size,
    not_a_vector,
    run_once,
    vector_size,
)


def outputs_of(model: Any) -> dict[str, slice]:
    """Returns where a model's vectors hold each embedding, by name; empty if there is only one."""
    found: dict[str, slice] = getattr(model, "outputs", {})
    return found


def known_slices(
    config: ModelConfig, wirings: Sequence[Wiring], layout: str
) -> dict[str, slice] | None:
    """Returns where each embedding lies, if the signatures fix all sizes; else None.

    Args:
        config: the config with the outputs.
        wirings: how each stage is called.
        layout: of feature maps, as for `as_vectors`.

    Raises:
        UsageError: an output is not one vector per image, or not of the config's size.
    """
    if any(stage.pool for stage in chain(config)) or not fit_together(wirings):
        return None
    sizes = []
    for output in config.outputs:
        wiring = wirings[place_of(config, output)]
        name = output.tensor or wiring.output_name
        size = vector_size(name, wiring.spec_of(name), output.pooling, layout)
        if size is None:
            return None
        sizes.append(size)
    return _slices(config, sizes)


def measured_slices(model: Any, config: ModelConfig) -> dict[str, slice]:
    """Returns where each embedding lies, after running a model once.

    Args:
        model: has `fit`, and `vectors`, which is called like `embed` and returns each embedding.
        config: the config with the outputs.

    Raises:
        UsageError: the model cannot be run, or does not give one vector per image for each output.
    """
    vectors = run_once(model.fit, model.vectors)
    for output, each in zip(config.outputs, vectors, strict=True):
        if each.ndim != 2:
            name = output.tensor or output.name
            raise UsageError(not_a_vector(name, f"of shape {list(each.shape)}"))
    return _slices(config, [each.shape[1] for each in vectors])


def vectors_of(
    config: ModelConfig,
    wirings: Sequence[Wiring],
    tensors: Sequence[Mapping[str, np.ndarray]],
    layout: str,
) -> list[np.ndarray]:
    """Returns float32 of shape (n, size) for each of the config's outputs.

    Args:
        config: the config with the outputs.
        wirings: how each stage is called.
        tensors: what each stage gave, by name.
        layout: of feature maps, as for `as_vectors`.
    """

    def vectors(output: NamedOutput) -> np.ndarray:
        place = place_of(config, output)
        values = tensors[place][output.tensor or wirings[place].output_name]
        return as_vectors(values, output.pooling, layout).astype(np.float32, copy=False)

    return [vectors(output) for output in config.outputs]


def joined(vectors: Sequence[np.ndarray], slices: Mapping[str, slice]) -> np.ndarray:
    """Returns one vector per image, in which the embeddings follow each other.

    Raises:
        ValueError: an embedding has another size than its slice.
    """
    for each, (name, part) in zip(vectors, slices.items(), strict=True):
        size = part.stop - part.start
        if each.shape[1:] != (size,):
            raise ValueError(f"the model gave {each.shape[1:]} floats for {name}, not {size}")
    return np.concatenate(vectors, axis=1)


def fit_together(wirings: Sequence[Wiring]) -> bool:
    """Whether the signatures show that each stage takes what the stage before it gives."""
    return all(_fits(one.output, other.input) for one, other in itertools.pairwise(wirings))


def _fits(given: TensorSpec, taken: TensorSpec) -> bool:
    if given.dtype != taken.dtype or not given.shape or not taken.shape:
        return False
    return None not in given.shape[1:] and given.shape[1:] == taken.shape[1:]


def _slices(config: ModelConfig, sizes: Sequence[int]) -> dict[str, slice]:
    for output, size in zip(config.outputs, sizes, strict=True):
        check_embedding_size(size, output)
    ends = list(itertools.accumulate(sizes))
    return {
        output.name: slice(end - size, end)
        for output, size, end in zip(config.outputs, sizes, ends, strict=True)
    }
