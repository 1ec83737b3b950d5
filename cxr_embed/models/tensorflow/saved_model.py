"""TensorFlow SavedModels, one or several in a row, run by TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_embed.models import inputs, outputs, several
from cxr_embed.models.settings import batch_size_for
from cxr_embed.models.signature import image_input, layout_of
from cxr_embed.models.tensorflow import devices
from cxr_embed.models.tensorflow.chain import Stage
from cxr_embed.models.tensorflow.kind import SAVED_MODEL
from cxr_embed.models.vectors import (
    as_vectors,
    check_embedding_size,
    embedding_size,
    measured_embedding_size,
)
from cxr_embed.radiograph import Radiograph

if TYPE_CHECKING:
    from cxr_embed.models import ModelSettings


class SavedModel:
    """A SavedModel, or a chain of them, that turns images into vectors; see `EmbeddingModel`.

    `embed` may be called by one thread at a time, as `SharedModel` does: the model uses all cores
    or devices by itself, and threads that compete for them cost both time and memory.

    Args:
        settings: what to load and where to run it.

    Raises:
        UsageError: TensorFlow cannot load it, or it cannot be called as the settings say.
    """

    kind = SAVED_MODEL
    takes_several_outputs = True

    def __init__(self, settings: ModelSettings) -> None:
        config = settings.config
        self._config = config
        placement = devices.choose(settings.device, settings.precision)
        self.device = placement.name
        best = settings.batch_size or batch_size_for(placement.kind) * placement.replicas
        batch = math.ceil(best / placement.replicas)
        stages = zip(self.kind.parts(settings), outputs.chain(config), strict=True)
        self._stages = [
            Stage(*both, placement, batch, outputs.further_tensors(config, place))
            for place, both in enumerate(stages)
        ]
        first, last = self._stages[0].wiring, self._stages[-1].wiring
        self.input = image_input(first, config)
        is_open = self.input.is_open
        if is_open:  # images of many sizes do not stack
            self._stages[0].take_one_at_a_time()
        locked = None if first.batch is None else first.batch * placement.replicas
        self.max_batch_size = 1 if is_open else locked
        self.best_batch_size = min(best, self.max_batch_size or best)
        wirings = [stage.wiring for stage in self._stages]
        self.outputs: dict[str, slice] = {}
        if config.outputs:
            self.outputs = several.known_slices(
                config, wirings, layout_of(self.input)
            ) or several.measured_slices(self, config)
            self.embedding_size = max(each.stop for each in self.outputs.values())
            return
        is_part = any(stage.feed or stage.pool for stage in config.stages)
        is_known = not is_part and several.fit_together(wirings)
        known = embedding_size(last, config, layout_of(self.input)) if is_known else None
        self.embedding_size = known or measured_embedding_size(
            self.fit, self.embed, last.output_name
        )
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
        """
        if self.outputs:
            return several.joined(self.vectors(images), self.outputs)
        values = inputs.stack(images)
        for stage in self._stages:
            values = stage(values)
        vectors = as_vectors(values, self._config.pooling, layout_of(self.input))
        return vectors.astype(np.float32, copy=False)

    def vectors(self, images: Sequence[Any]) -> list[np.ndarray]:
        """Returns float32 of shape (n, size) for each of several outputs, like `embed`."""
        values, given = inputs.stack(images), []
        for stage in self._stages:
            given.append(stage.tensors(values))
            values = given[-1][stage.wiring.output_name]
        wirings = [stage.wiring for stage in self._stages]
        return several.vectors_of(self._config, wirings, given, layout_of(self.input))
