"""One SavedModel of a chain: a batch in, a batch out, run by TensorFlow."""

from __future__ import annotations

import importlib
from typing import Any, cast

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models import tensorflow_runtime
from cxr_embed.models.config import StageConfig
from cxr_embed.models.signature import TensorSpec, Wiring, choose_signature, wire


class Stage:
    """A loaded SavedModel with one way in and one way out.

    Args:
        path: its folder.
        config: which signature, or which part of a TensorFlow 1 graph, to run.

    Raises:
        UsageError: TensorFlow cannot load it, or it has nothing of what the config names.
    """

    def __init__(self, path: str, config: StageConfig) -> None:
        self._tf = tensorflow_runtime.import_tensorflow()
        self._pool = config.pool
        self._loaded = _load(path)  # owns the variables that the function uses
        if config.feed and config.fetch:
            self._call, self.wiring = _prune(self._loaded, config, path)
            return
        key = choose_signature(list(self._loaded.signatures), config.signature)
        signature = self._loaded.signatures[key]
        self._call = lambda inputs: signature(**inputs)
        self.wiring = wire(
            _specs(signature.structured_input_signature[1]),
            _specs(signature.structured_outputs),
            config,
        )

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Runs a batch of any length, in pieces where the model takes only so many at a time.

        Raises:
            ValueError: the model does not give one result for each image.
        """
        step = self.wiring.batch or len(values)
        pieces = [self._run(values[i : i + step]) for i in range(0, len(values), step)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _run(self, values: np.ndarray) -> np.ndarray:
        wiring, count = self.wiring, len(values)
        if wiring.batch is not None and count < wiring.batch:  # what fills it up is thrown away
            values = np.concatenate([values, np.repeat(values[-1:], wiring.batch - count, axis=0)])
        inputs = {wiring.input_name: self._tf.constant(values)}
        for name, spec, value in wiring.constants:
            shape = [len(values) if size is None else size for size in spec.shape or ()]
            inputs[name] = self._tf.constant(np.full(shape, value, spec.dtype))
        results = self._call(inputs)[wiring.output_name].numpy()
        if len(results) != len(values):
            raise ValueError(f"the model gave {len(results)} results for {len(values)} images")
        return _average_blocks(results, self._pool)[:count]


def _load(path: str) -> Any:
    tf = tensorflow_runtime.import_tensorflow()
    try:
        # Its import registers the ops that models with a text half are made of.
        importlib.import_module("tensorflow_text")
        text = "tensorflow_text is installed and lacks it, too"
    except ImportError:
        text = "if it is one of text models: pip install tensorflow-text, in TensorFlow's version"
    except Exception as error:  # built for another TensorFlow; most models do without it
        text = f"tensorflow_text cannot be imported: {one_line(error)}"
    try:
        return tf.saved_model.load(path)
    except Exception as error:
        hint = f"; {text}" if "Op type not registered" in str(error) else ""
        raise UsageError(
            f"--model_path {path} cannot be loaded: {one_line(error)}{hint}"
        ) from error


def _prune(loaded: Any, config: StageConfig, path: str) -> tuple[Any, Wiring]:
    """Returns the part of a graph between two of its tensors.

    The tensors' declared batch says nothing: the graph around fixes it, and the part need not.
    """
    feed, fetch = cast(str, config.feed), cast(str, config.fetch)
    if not hasattr(loaded, "prune"):
        raise UsageError(
            f"--model_path {path} is no TensorFlow 1 graph: only one of those can be fed at "
            f"{feed}; name a signature instead"
        )
    names = [feed, *(name for name, _ in config.constants)]
    try:
        feeds = {name: loaded.graph.as_graph_element(name) for name in names}
        result = loaded.graph.as_graph_element(fetch)
        pruned = loaded.prune(list(feeds.values()), [result])
    except Exception as error:
        raise UsageError(
            f"--model_path {path} cannot be run from {feed} to {fetch}: {one_line(error)}"
        ) from error

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        return {fetch: pruned(*(inputs[name] for name in names))[0]}

    specs = {name: _any_batch(tensor) for name, tensor in feeds.items()}
    return call, wire(specs, {fetch: _any_batch(result)}, config)


def _any_batch(tensor: Any) -> TensorSpec:
    dtype, shape = _spec(tensor)
    return TensorSpec(dtype, (None, *shape[1:]) if shape else shape)


def _average_blocks(values: np.ndarray, pool: tuple[int, int] | None) -> np.ndarray:
    """Averages (n, rows, columns, channels) over blocks that do not overlap."""
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
