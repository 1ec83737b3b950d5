"""`EmbeddingModelHandler`: this program's models, for Beam's `RunInference`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from cxr_embed import models, storage
from cxr_embed.elements import Embedding, ImageRef
from cxr_embed.errors import ImageRejected
from cxr_embed.models import ModelSettings
from cxr_embed.models.several import outputs_of
from cxr_embed.models.sharing import SharedModel, shared
from cxr_embed.outcomes import Failed
from cxr_embed.pipeline.coders import FieldsCoder, array_bytes
from cxr_embed.pipeline.concurrency import NAMESPACE
from cxr_embed.radiograph import InputFacts, Radiograph


@dataclass(slots=True, eq=False)
class FittedImage:
    """An image as the model takes it; between two steps of `EmbedRadiographs`.

    Attributes:
        ref: which image.
        fitted: what `EmbeddingModel.fit` returned (an array, or a serialized example), or why it
            cannot be fitted.
        rows: height of the radiograph in pixels, before it was fitted.
        columns: width likewise.
        warnings: the radiograph's.
        source: the radiograph's.
    """

    ref: ImageRef
    fitted: Any
    rows: int
    columns: int
    warnings: tuple[str, ...]
    source: InputFacts | None


class FittedImageCoder(FieldsCoder):
    """Encodes `FittedImage`."""

    type_ = FittedImage


beam.coders.registry.register_coder(FittedImage, FittedImageCoder)


class EmbeddingModelHandler(ModelHandler[Any, Any, SharedModel]):
    """Runs one model on whole batches and gives each image its embedding or its failure.

    Elements are `FittedImage`, as `EmbedRadiographs` makes them, or (`ImageRef`, `Radiograph`),
    which are then fitted here, one after the other. Predictions are `Embedding` or `Failed`; of a
    model with several outputs, a list with an `Embedding` for each one that the reference names.

    A process holds a model once, however many handlers and threads ask for it; its calls are one
    at a time. One bad image of a batch costs no other image its embedding. What would affect any
    image (no memory, a lost device, 16 failures in a row) raises `MachineFault`.

    Args:
        settings: which model, and how to run it.
        batch_size: images per batch; 0 chooses by the device that the settings name.
    """

    def __init__(self, settings: ModelSettings, batch_size: int = 0) -> None:
        size = batch_size or settings.batch_size or models.default_batch_size(settings)
        super().__init__(min_batch_size=size, max_batch_size=size)
        self._settings = settings
        self._batch_size = size
        self._places = storage.settings()

    @property
    def batch_size(self) -> int:
        """Images in a whole batch."""
        return self._batch_size

    def load_model(self) -> SharedModel:
        """Returns this process's copy of the model."""
        storage.configure(self._places)
        return shared(self._settings)

    def run_inference(
        self,
        batch: Sequence[FittedImage | tuple[ImageRef, Radiograph]],
        model: SharedModel,
        inference_args: dict[str, Any] | None = None,
    ) -> list[Embedding | Failed | list[Embedding]]:
        """Returns an `Embedding` or a `Failed` for each image of a batch, in order."""
        images = [item if isinstance(item, FittedImage) else fit(model, *item) for item in batch]
        fitted = [image.fitted for image in images if not isinstance(image.fitted, ImageRejected)]
        vectors = iter(model.embed_each(fitted))
        results = (
            image.fitted if isinstance(image.fitted, ImageRejected) else next(vectors)
            for image in images
        )
        outputs = outputs_of(model.model)
        return [
            _outcome(image, found, outputs) for image, found in zip(images, results, strict=True)
        ]

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Returns the bytes that go into the model; the base class would pickle the batch."""
        return sum(array_bytes(item) for item in batch if isinstance(item, FittedImage))

    def get_metrics_namespace(self) -> str:
        """Returns the namespace of all metrics of this package."""
        return NAMESPACE


def fit(model: SharedModel, ref: ImageRef, radiograph: Radiograph) -> FittedImage:
    """Returns a radiograph as the model takes it, or with the reason why it cannot be fitted."""
    rows, columns = radiograph.pixels.shape
    warnings = tuple(radiograph.warnings)
    return FittedImage(ref, model.fit(radiograph), rows, columns, warnings, radiograph.source)


def _outcome(
    image: FittedImage, result: np.ndarray | ImageRejected, outputs: dict[str, slice]
) -> Embedding | Failed | list[Embedding]:
    ref = image.ref
    if isinstance(result, ImageRejected):
        return Failed(ref.dicom_id, ref.path, result.reason, result.detail, ref.outputs)
    if outputs:
        wanted = ref.outputs or outputs
        return [_embedding(image, result[outputs[name]], name) for name in wanted]
    return _embedding(image, result)


def _embedding(image: FittedImage, values: np.ndarray, output: str = "") -> Embedding:
    ref = image.ref
    return Embedding(
        ref.dicom_id, ref.path, values, ref.folder,
        image.rows, image.columns, image.warnings, image.source, output,
    )  # fmt: skip
