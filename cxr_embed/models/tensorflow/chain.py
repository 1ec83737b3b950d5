"""Runs one SavedModel of a chain with TensorFlow, on batches of any size."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.config import StageConfig
from cxr_embed.models.inputs import pad
from cxr_embed.models.signature import (
    TensorSpec,
    Wiring,
    choose_signature,
    wire,
)
from cxr_embed.models.tensorflow.devices import Placement
from cxr_embed.models.tensorflow.graph_part import GraphPart
from cxr_embed.models.tensorflow.runtime import import_tensorflow

_log = logging.getLogger(__name__)


class Stage:
    """A loaded SavedModel with one input and one output, which may also give further tensors.

    Args:
        path: folder of the model.
        config: the signature, or the part of a TensorFlow 1 graph, to run.
        placement: the devices.
        batch: images per replica and call, for devices that need the same number in every call.
        further: names of tensors to return besides the output.

    Attributes:
        wiring: how the model is called.

    Raises:
        UsageError: TensorFlow cannot load the model, or a name in the config does not exist.
    """

    def __init__(
        self,
        path: str,
        config: StageConfig,
        placement: Placement,
        batch: int = 1,
        further: tuple[str, ...] = (),
    ) -> None:
        self._placement = placement
        self._pool, self._further = config.pool, further
        with placement.scope():
            self._loaded = _load(path)  # owns the variables that the function uses
        if config.feed and config.fetch:
            part, self.wiring = _prune(self._loaded, config, path, further)
        else:
            part, self.wiring = _signature(self._loaded, config, further)
        self._call = placement.ready(part)
        fixed = batch if placement.has_fixed_shapes else None
        self._batch: int | None = self.wiring.batch or fixed

    def take_one_at_a_time(self) -> None:
        """Sets the batch size to one, for images of different sizes."""
        self._batch = 1

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the output for a batch of any length; see `tensors`."""
        return self.tensors(values)[self.wiring.output_name]

    def tensors(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Runs a batch of any length, split into batches that the model accepts.

        Returns the output and the further tensors by name.

        If the device runs out of memory, the batch size is halved until a batch fits, and keeps
        this value.

        Raises:
            ValueError: the model does not return one result for each image.
        """
        results: list[tuple[np.ndarray, ...]] = []
        done = 0
        while done < len(values):
            batch = self._batch or len(values) - done
            batches = values[done : done + batch * self._placement.replicas]
            try:
                results.append(self._run(batches, batch))
            except import_tensorflow().errors.ResourceExhaustedError:
                if self.wiring.batch is not None or batch == 1:
                    raise
                self._batch = batch // 2
                _log.warning(
                    "out of memory with %d images a call on %s: continuing with %d",
                    batch, self._placement.name, self._batch,
                )  # fmt: skip
                continue
            done += len(batches)
        whole = results[0] if len(results) == 1 else map(np.concatenate, zip(*results, strict=True))
        return dict(zip((self.wiring.output_name, *self._further), whole, strict=True))

    def _run(self, values: np.ndarray, batch: int) -> tuple[np.ndarray, ...]:
        """Runs at most one batch on each replica; a batch of fixed size is padded."""
        count = length = len(values)
        if self._batch is not None:
            length = batch * self._placement.replicas
        values = pad(values, length)  # the results of the padding are discarded
        pieces = [values[start : start + batch] for start in range(0, length, batch)]
        self._placement.prepare_thread()
        results = self._call([dict(self._inputs(piece)) for piece in pieces])
        if not self._further:
            results = [(result,) for result in results]
        given = sum(len(result[0]) for result in results)
        if given != length:
            raise ValueError(f"the model gave {given} results for {length} images")
        own, *further = map(np.concatenate, zip(*results, strict=True))
        return (_average_blocks(own, self._pool)[:count], *(each[:count] for each in further))

    def _inputs(self, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        yield self.wiring.input_name, values
        yield from self.wiring.filled(len(values)).items()


def _load(path: str) -> Any:
    tf = import_tensorflow()
    try:
        try:
            return tf.saved_model.load(path)
        except Exception as error:
            if "Op type not registered" not in str(error):
                raise
            missing = one_line(error)
        # Models with a text encoder need ops that this import registers.
        importlib.import_module("tensorflow_text")
        return tf.saved_model.load(path)
    except ImportError as error:
        raise UsageError(
            f"--model_path {path} needs an op that TensorFlow lacks; if it has a text encoder, as "
            f"CXR Foundation v2 has: pip install 'cxr-embed[cxr-foundation]' ({missing})"
        ) from error
    except Exception as error:
        raise UsageError(f"--model_path {path} cannot be loaded: {one_line(error)}") from error


def _signature(
    loaded: Any, config: StageConfig, further: tuple[str, ...]
) -> tuple[GraphPart, Wiring]:
    key = choose_signature(list(loaded.signatures), config.signature)
    function = loaded.signatures[key]
    inputs = function.structured_input_signature[1]
    wiring = wire(_specs(inputs), _specs(function.structured_outputs), config)
    for name in further:
        wiring.spec_of(name)  # raises if there is none
    return GraphPart(function, tuple(sorted(inputs)), wiring.output_name, further), wiring


def _prune(
    loaded: Any, config: StageConfig, path: str, further: tuple[str, ...]
) -> tuple[GraphPart, Wiring]:
    """Returns the part of a graph between two of its tensors.

    The batch size that the tensors declare is ignored, since it may be fixed by the graph around
    this part only.
    """
    feed, fetch = cast(str, config.feed), cast(str, config.fetch)
    if not hasattr(loaded, "prune"):
        raise UsageError(
            f"--model_path {path} is not a TensorFlow 1 graph, so it cannot be fed at {feed}: name "
            "a signature instead"
        )
    names = [feed, *(name for name, _ in config.constants)]
    try:
        feeds = {name: loaded.graph.as_graph_element(name) for name in names}
        fetches = {name: loaded.graph.as_graph_element(name) for name in (fetch, *further)}
        pruned = loaded.prune(list(feeds.values()), list(fetches.values()))
    except Exception as error:
        raise UsageError(
            f"--model_path {path} cannot be run from {feed} to {fetch}: {one_line(error)}"
        ) from error

    specs = {name: _any_batch(tensor) for name, tensor in feeds.items()}
    given = {name: _any_batch(tensor) for name, tensor in fetches.items()}
    wiring = wire(specs, given, replace(config, output=fetch))
    return GraphPart(pruned, tuple(names), further=further), wiring


def _any_batch(tensor: Any) -> TensorSpec:
    dtype, shape = _spec(tensor)
    return TensorSpec(dtype, (None, *shape[1:]) if shape else shape)


def _average_blocks(values: np.ndarray, pool: tuple[int, int] | None) -> np.ndarray:
    """Averages (n, rows, columns, channels) over non-overlapping blocks."""
    if pool is None:
        return values
    count, rows, columns, channels = values.shape
    blocks = (count, rows // pool[0], pool[0], columns // pool[1], pool[1], channels)
    return values.reshape(blocks).mean((2, 4), dtype=np.float32)


def _specs(tensors: dict[str, Any]) -> dict[str, TensorSpec]:
    return {name: _spec(tensor) for name, tensor in tensors.items()}


def _spec(tensor: Any) -> TensorSpec:
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorSpec(tensor.dtype.name, shape)
