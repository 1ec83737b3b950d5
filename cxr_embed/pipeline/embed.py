"""`EmbedRadiographs`: rendered radiographs to embeddings; and `EmbedImages`, which reads first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import cv2
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RunInference
from apache_beam.pvalue import TaggedOutput

from cxr_embed.elements import Embedding, ImageRef
from cxr_embed.models import ModelSettings
from cxr_embed.outcomes import Failed
from cxr_embed.pipeline.concurrency import (
    NAMESPACE,
    BundleTurn,
    Result,
    ThreadedDoFn,
    Threads,
)
from cxr_embed.pipeline.handler import EmbeddingModelHandler, FittedImage, fit
from cxr_embed.pipeline.read import ReadRadiographs
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph
from cxr_embed.storage.parallel import usable_cores


class EmbedResult(NamedTuple):
    """The outputs of `EmbedRadiographs`.

    Attributes:
        embeddings: PCollection of `Embedding`.
        failed: PCollection of `Failed`: images that the model has no embedding for.
    """

    embeddings: beam.PCollection
    failed: beam.PCollection


class EmbedImagesResult(NamedTuple):
    """The outputs of `EmbedImages`.

    Attributes:
        embeddings: PCollection of `Embedding`.
        failed: PCollection of `Failed`: images that cannot be read or embedded.
        skipped: PCollection of `Skipped`: images that are left out on purpose.
    """

    embeddings: beam.PCollection
    failed: beam.PCollection
    skipped: beam.PCollection


class EmbedRadiographs(beam.PTransform):
    """Runs a model: (`ImageRef`, `Radiograph`) in, `EmbedResult` out.

    Radiographs are fitted to the model's input in threads, while the model runs; then Beam's
    `RunInference` runs the model in whole batches. Within a bundle no batch is smaller because an
    image before it failed; the last batch of a bundle may be smaller.

    A model with several outputs gives an `Embedding` for each of them, with the output's name.

    Keep this step fused with the one that makes the radiographs: a shuffle in between holds all
    pixels in memory or sends them over the network.

    Args:
        model: a path as `--model_path` takes it, or `ModelSettings`.
        batch_size: images per model call; 0 chooses by the device. On a CPU it is best left at 0,
            which is one image: an embedding then never depends on other images, to the last bit.
    """

    def __init__(self, model: str | ModelSettings, batch_size: int = 0) -> None:
        super().__init__()
        settings = model if isinstance(model, ModelSettings) else ModelSettings.of_path(model)
        self._handler = EmbeddingModelHandler(settings, batch_size)

    @property
    def batch_size(self) -> int:
        """Images in a whole batch."""
        return self._handler.batch_size

    def expand(self, radiographs: beam.PCollection) -> EmbedResult:
        outputs = (
            radiographs
            | "Fit" >> beam.ParDo(_Fit(self._handler)).with_output_types(FittedImage)
            | "Model" >> RunInference(self._handler)
            | "Outcomes"
            >> beam.ParDo(_Split())
            .with_output_types(Embedding, failed=Failed)
            .with_outputs("failed", main="embeddings")
        )
        return EmbedResult(outputs.embeddings, outputs.failed)


class EmbedImages(beam.PTransform):
    """`ReadRadiographs`, then `EmbedRadiographs`: paths or `ImageRef` in, embeddings out.

    Args:
        model: a path as `--model_path` takes it, or `ModelSettings`.
        rendering: see `ReadRadiographs`, likewise the next three.
        file_type: see there.
        views: see there.
        max_pixels: see there.
        batch_size: images per model call; 0 chooses by the device.
    """

    def __init__(
        self,
        model: str | ModelSettings,
        *,
        rendering: str = "cxr_foundation",
        file_type: str = "auto",
        views: str = "all",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        batch_size: int = 0,
    ) -> None:
        super().__init__()
        self._embed = EmbedRadiographs(model, batch_size)
        self._read = ReadRadiographs(
            rendering=rendering, file_type=file_type, views=views, max_pixels=max_pixels,
            waiting=self._embed.batch_size,
        )  # fmt: skip

    def expand(self, images: beam.PCollection) -> EmbedImagesResult:
        read = images | "Read" >> self._read
        embed = read.radiographs | "Embed" >> self._embed
        failed = (read.failed, embed.failed) | "Failed" >> beam.Flatten()
        return EmbedImagesResult(embed.embeddings, failed, read.skipped)


class _Fit(ThreadedDoFn):
    """(ImageRef, Radiograph) -> FittedImage."""

    def __init__(self, handler: EmbeddingModelHandler) -> None:
        self._handler = handler

    def threads(self) -> Threads:
        # What the next batch needs is fitted while the model runs.
        count = max(1, usable_cores() // 2)
        return Threads("fit", count, self._handler.batch_size)

    def setup(self) -> None:
        super().setup()
        # Images are spread over threads already; OpenCV's own would only compete with them.
        cv2.setNumThreads(1)
        self._model = self._handler.load_model()

    def work(self, element: tuple[ImageRef, Radiograph]) -> Result:
        since = time.perf_counter()
        image = fit(self._model, *element)
        return Result(None, image, {"fit_microseconds": round(1e6 * (time.perf_counter() - since))})


class _Split(beam.DoFn):
    """Embedding, embeddings or Failed -> one output for each, with failures counted by reason."""

    def setup(self) -> None:
        self._turn = BundleTurn()

    def start_bundle(self) -> None:
        self._turn.begin()

    def finish_bundle(self) -> None:
        self._turn.end()

    def teardown(self) -> None:
        self._turn.end()

    def process(self, outcome: Embedding | Failed | list[Embedding]) -> Iterator[Any]:
        if isinstance(outcome, Failed):
            Metrics.counter(NAMESPACE, f"failed/{outcome.reason}").inc()
            yield TaggedOutput("failed", outcome)
        elif isinstance(outcome, list):
            yield from outcome
        else:
            yield outcome
