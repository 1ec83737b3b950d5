"""An ONNX graph that turns images into vectors, run by ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.models import inputs, outputs, several
from cxr_embed.models.fit import numpy_type
from cxr_embed.models.onnx.kind import ONNX
from cxr_embed.models.onnx.session import import_runtime, open_session
from cxr_embed.models.settings import batch_size_for
from cxr_embed.models.signature import image_input, layout_of
from cxr_embed.models.vectors import (
    as_vectors,
    check_embedding_size,
    embedding_size,
    measured_embedding_size,
)
from cxr_embed.radiograph import Radiograph

if TYPE_CHECKING:
    from cxr_embed.models import ModelSettings

Sizes: TypeAlias = int | dict[str, slice]

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


class OnnxModel:
    """An ONNX graph with one input of images; see `EmbeddingModel`.

    `embed` may be called by one thread at a time, as `SharedModel` does: ONNX Runtime uses all
    cores by itself.

    Args:
        settings: what to load and where to run it.

    Raises:
        UsageError: the graph cannot be loaded or called as the settings say.
    """

    kind = ONNX
    takes_several_outputs = True

    def __init__(self, settings: ModelSettings) -> None:
        config = settings.config
        self._config = config
        (self._wiring,) = self.kind.wirings(settings)
        self.input = image_input(self._wiring, config, self.kind.default_layout)
        is_open = self.input.is_open
        path = self.kind.parts(settings)[0]
        self._session, self.device = open_session(path, settings.device, is_open=is_open)
        self.max_batch_size = 1 if is_open else self._wiring.batch
        best = settings.batch_size or batch_size_for(self.device)
        self.best_batch_size = min(best, self.max_batch_size or best)
        # A new number of images makes a GPU choose its kernels again.
        self._batch = self._wiring.batch or (None if self.device == "cpu" else self.best_batch_size)
        self._names = (self._wiring.output_name, *outputs.further_tensors(config, 0))
        self.outputs: dict[str, slice] = {}
        self.embedding_size = 0
        # The graph is run once: ONNX Runtime accepts one whose output has another shape than it
        # declares, and finds some faults only when it runs. With an open size, it may be made for
        # other sizes than the example's.
        layout = layout_of(self.input)
        if config.outputs:
            declared = several.known_slices(config, [self._wiring], layout)
            trusted = declared if is_open else None
            self.outputs = trusted or several.measured_slices(self, config)
            _check_declared(declared, self.outputs)
            self.embedding_size = max(each.stop for each in self.outputs.values())
            return
        size = embedding_size(self._wiring, config, layout)
        name = self._wiring.output_name
        trusted_size = size if is_open else None
        self.embedding_size = trusted_size or measured_embedding_size(self.fit, self.embed, name)
        _check_declared(size, self.embedding_size)
        check_embedding_size(self.embedding_size, config)

    def fit(self, radiograph: Radiograph) -> Any:
        """Returns a radiograph as `embed` wants it."""
        return inputs.fit(radiograph, self.input)

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        """Computes embeddings.

        Args:
            images: fitted radiographs, at most `max_batch_size`.

        Returns:
            float32 of shape (n, embedding_size).

        Raises:
            ValueError: the graph does not give one vector of this size for each image.
        """
        if self.outputs:
            return several.joined(self.vectors(images), self.outputs)
        (values,) = self._tensors(images).values()
        vectors = as_vectors(values, self._config.pooling, layout_of(self.input))
        if self.embedding_size and vectors.shape[1:] != (self.embedding_size,):
            raise ValueError(
                f"the model gave {list(vectors.shape[1:])} floats, not {self.embedding_size}"
            )
        return vectors.astype(np.float32, copy=False)

    def vectors(self, images: Sequence[Any]) -> list[np.ndarray]:
        """Returns float32 of shape (n, size) for each of several outputs, like `embed`."""
        given = [self._tensors(images)]
        return several.vectors_of(self._config, [self._wiring], given, layout_of(self.input))

    def _tensors(self, images: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns the wanted tensors by name."""
        values = inputs.stack(images)
        size = self._batch or len(values)
        batches = [values[start : start + size] for start in range(0, len(values), size)]
        given = zip(*(self._one_call(batch, size) for batch in batches), strict=True)
        return dict(zip(self._names, map(np.concatenate, given), strict=True))

    def _one_call(self, values: np.ndarray, size: int) -> list[np.ndarray]:
        """Runs one batch, filled up to `size` images."""
        given = inputs.pad(values, size)
        results = self._run({self._wiring.input_name: given, **self._wiring.filled(size)})
        for result in results:
            if len(result) != size:
                raise ValueError(f"the model gave {len(result)} results for {size} images")
        return [result[: len(values)] for result in results]

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        taken = [value.dtype.name for value in feeds.values()]
        given_types = [self._wiring.spec_of(name).dtype for name in self._names]
        if "bfloat16" not in (*taken, *given_types):
            results: list[np.ndarray] = self._session.run(list(self._names), feeds)
            return results
        ort_value = import_runtime().OrtValue
        given = {
            name: ort_value.ortvalue_from_numpy_with_onnx_type(value.view(np.uint16), _BFLOAT16)
            if value.dtype.name == "bfloat16"
            else ort_value.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in feeds.items()
        }
        return list(map(_as_array, self._session.run_with_ort_values(list(self._names), given)))


def _check_declared(declared: Sizes | None, given: Sizes) -> None:
    if declared not in (None, given):
        raise UsageError(
            f"the ONNX graph declares embeddings of {_shown(declared)} floats and gives "
            f"{_shown(given)}: export it again with the shape that it has"
        )


def _shown(sizes: Sizes | None) -> str:
    if not isinstance(sizes, dict):
        return str(sizes)
    return ", ".join(f"{name} {part.stop - part.start}" for name, part in sizes.items())


def _as_array(value: Any) -> np.ndarray:
    if value.element_type() != _BFLOAT16:
        array: np.ndarray = value.numpy()
        return array
    # NumPy has no such type, so ONNX Runtime does not convert it.
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, numpy_type("bfloat16")).reshape(value.shape())
