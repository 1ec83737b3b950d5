"""The walk of a few images from references to outcomes: read, fit, embed, write. Knows no Beam.

Images walk in chunks. What costs once a call elsewhere (Beam's way to an element, its counters)
costs once a chunk here, and only references and lines of tables ever leave it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2
import numpy as np

from cxr_embed import ledger, models, monitor, storage, threads
from cxr_embed.errors import ImageRejected, ImageSkipped, one_line
from cxr_embed.file_types import OTHER_NAME
from cxr_embed.image_files import read_image
from cxr_embed.outcomes import Embedded, Failed, Outcome, Skipped
from cxr_embed.records import Record, encode_record
from cxr_embed.sources import ImageRef
from cxr_embed.storage import gcs

_Item = TypeVar("_Item")

# Uploads that one batch has under way at a time.
_UPLOADS = 16

_making_a_pool = threading.Lock()


@dataclass(frozen=True)
class EmbedSettings:
    """All that a walk needs besides the references; small, and pickles.

    Attributes:
        run_id: the run's name; its folder below the output bears it.
        output_path: where records go.
        model: what to load on each worker.
        batch_size: images per model call; 0 lets each worker choose.
        decode_threads: with larger batches, threads that read for all walks of this process; 0
            lets each worker choose. With a batch of one each walk reads for itself.
        file_type: `auto`, `dicom`, `png` or `jpeg`.
        rendering: `cxr_foundation` or `dicom`.
        views: `all` or `frontal`.
        max_pixels: larger images are rejected.
        max_failures: start no more images once more than this have failed; 0 is never.
        bucket_access: how workers speak to Google Cloud Storage.
    """

    run_id: str
    output_path: str
    model: models.ModelSettings
    batch_size: int
    decode_threads: int
    file_type: str
    rendering: str
    views: str
    max_pixels: int
    max_failures: int
    bucket_access: gcs.GcsSettings = field(default_factory=gcs.settings)


@dataclass
class FittedImage:
    """An image between reading and embedding."""

    ref: ImageRef
    fitted: Any
    rows: int
    columns: int
    warnings: tuple[str, ...]


@dataclass
class Walked:
    """What came of a chunk.

    Attributes:
        outcomes: the end of each image that was started.
        checked: a line of the ledger for each record written to a local output.
        counts: `embedded`, `failed/<reason>`, `skipped/<reason>`, `bytes_read`, `model_calls`,
            `batches_of/<number of images>`, and
            `<stage>_microseconds`, summed over threads.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    checked: list[ledger.Line] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class _Clock:
    """Adds the time since it was last asked to a stage."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._since = time.perf_counter()

    def book(self, stage: str) -> None:
        now = time.perf_counter()
        self._counts[f"{stage}_microseconds"] += round((now - self._since) * 1e6)
        self._since = now


class Walk:
    """Walks chunks of images, several at a time.

    Args:
        settings: what to do. The model is loaded unless this process has it already.

    Attributes:
        threads: what works at a time in this process.
    """

    def __init__(self, settings: EmbedSettings) -> None:
        # Images are spread over threads already; OpenCV's own would only get in their way.
        cv2.setNumThreads(1)
        self._settings = settings
        self._monitor = monitor.monitor_of(settings.run_id, settings.max_failures)
        since = time.perf_counter()
        self._model = models.shared(settings.model)
        loading = round((time.perf_counter() - since) * 1e6)
        # Told with the first chunk: Beam's counters belong to bundles, and no bundle has begun. A
        # model that the process had already took no time.
        self._loading = [loading] if loading > 1_000 else []
        self._batch_size = settings.batch_size or self._model.best_batch_size
        self._is_remote = storage.is_remote(settings.output_path)
        self.threads = threads.choose(
            settings.decode_threads,
            batch_size=self._batch_size,
            device=self._model.device,
            is_remote=self._is_remote,
        )

    def start(self, refs: Sequence[ImageRef]) -> Future[Walked]:
        """Starts to walk a chunk; `threads.walks` of them are under way at a time, others wait."""
        return _pool("walk", self.threads.walks).submit(self.walk, refs)

    def walk(self, refs: Sequence[ImageRef]) -> Walked:
        """Walks a chunk to its end, or until the run is asked to stop."""
        walked = Walked()
        with contextlib.suppress(IndexError):  # another thread may have told it
            walked.counts["model_load_microseconds"] += self._loading.pop()
        size = self._batch_size
        ready: list[FittedImage] = []
        for some in slices(refs, size):
            for result, counts in self._read_all(some):
                walked.counts.update(counts)
                if isinstance(result, FittedImage):
                    ready.append(result)
                elif result is not None:
                    self._finish(result, walked)
            # What was skipped or failed is made up for: the model gets whole batches.
            if len(ready) >= size:
                self._embed_and_write(ready[:size], walked)
                del ready[:size]
        if ready:
            self._embed_and_write(ready, walked)
        return walked

    def _read_all(
        self, refs: Sequence[ImageRef]
    ) -> Iterable[tuple[FittedImage | Outcome | None, Counter[str]]]:
        if len(refs) == 1:
            return [self._read_and_fit(refs[0])]
        return _pool("read", self.threads.decode).map(self._read_and_fit, refs)

    def _read_and_fit(self, ref: ImageRef) -> tuple[FittedImage | Outcome | None, Counter[str]]:
        """Returns an image as the model takes it, or its end, or None where the run stops."""
        counts: Counter[str] = Counter()
        if self._monitor.is_stopping:
            return None, counts
        settings, clock = self._settings, _Clock(counts)
        try:
            data = storage.read_bytes(ref.path)
            counts["bytes_read"] += len(data)
            clock.book("read")
            radiograph = read_image(
                data,
                settings.file_type,
                settings.rendering,
                max_pixels=settings.max_pixels,
                views=settings.views,
            )
            clock.book("decode_and_render")
            fitted = self._model.fit(radiograph)
            clock.book("fit")
        except ImageSkipped as skipped:
            return Skipped(ref.dicom_id, ref.path, skipped.reason, skipped.detail), counts
        except ImageRejected as rejected:
            return _rejected(ref, rejected), counts
        except OSError as error:
            return Failed(ref.dicom_id, ref.path, "read_error", _os_detail(error)), counts
        rows, columns = radiograph.pixels.shape
        return FittedImage(ref, fitted, rows, columns, tuple(radiograph.warnings)), counts

    def _embed_and_write(self, images: Sequence[FittedImage], walked: Walked) -> None:
        """One model call, and its records; one bad image does not cost its neighbours."""
        results = self._embed([image.fitted for image in images], walked.counts)
        clock = _Clock(walked.counts)
        walked.counts["model_calls"] += 1
        walked.counts[f"batches_of/{len(images)}"] += 1
        for outcome, line in self._write_all(list(zip(images, results, strict=True))):
            if line is not None:
                walked.checked.append(line)
            self._finish(outcome, walked)
        clock.book("write")

    def _embed(
        self, fitted: Sequence[Any], counts: Counter[str]
    ) -> Sequence[np.ndarray | Exception]:
        """Calls the model; books the call and what it waited for."""
        since = time.perf_counter()
        if self._settings.model.endpoint is not None:  # a hosted model answers many at a time
            results, seconds = _timed_call(self._model, fitted)
        else:
            # A model on this machine uses all of it. Its calls have a thread of their own, so that
            # the next one begins before the last one's walk wakes up.
            results, seconds = _pool("model", 1).submit(_timed_call, self._model, fitted).result()
        counts["infer_microseconds"] += round(1e6 * seconds)
        counts["wait_for_model_microseconds"] += round(
            1e6 * (time.perf_counter() - since - seconds)
        )
        return results

    def _write_all(
        self, pairs: Sequence[tuple[FittedImage, np.ndarray | Exception]]
    ) -> Iterable[tuple[Outcome, ledger.Line | None]]:
        # An upload waits for the network, a local file hardly waits for anything.
        if self._is_remote and len(pairs) > 1:
            return _pool("write", _UPLOADS).map(self._write, pairs)
        return map(self._write, pairs)

    def _write(
        self, pair: tuple[FittedImage, np.ndarray | Exception]
    ) -> tuple[Outcome, ledger.Line | None]:
        """Writes one image's record; returns its end, and the record's line of the ledger."""
        image, result = pair
        ref = image.ref
        if isinstance(result, Exception):
            return Failed(ref.dicom_id, ref.path, "model_error", one_line(result)), None
        if not np.isfinite(result).all():
            detail = "the model gave NaN or infinity"
            return Failed(ref.dicom_id, ref.path, "not_finite", detail), None
        target = storage.join(self._settings.output_path, ref.record)
        try:
            storage.write_whole(target, encode_record(Record(ref.path, result)))
        except OSError as error:
            return Failed(ref.dicom_id, ref.path, "write_error", _os_detail(error)), None
        ended = Embedded(
            ref.dicom_id, ref.path, ref.record, image.rows, image.columns, image.warnings
        )
        if self._is_remote:
            return ended, None
        return ended, ledger.line_of(target, ref.record, ref.path, len(result))

    def _finish(self, outcome: Outcome, walked: Walked) -> None:
        """Counts an image's end, once."""
        kind = monitor.kind_of(outcome)
        name = kind if isinstance(outcome, Embedded) else f"{kind}/{outcome.reason}"
        walked.counts[name] += 1
        walked.outcomes.append(outcome)
        self._monitor.record(outcome)


def _timed_call(
    model: models.EmbeddingModel, fitted: Sequence[Any]
) -> tuple[Sequence[np.ndarray | Exception], float]:
    since = time.perf_counter()
    return models.embed_each(model, fitted), time.perf_counter() - since


def _rejected(ref: ImageRef, rejected: ImageRejected) -> Outcome:
    # Folders of images hold reports and licences, too. What a search came across, is named like
    # something else and is something else, is not a failure.
    if rejected.reason == "not_an_image" and not ref.is_listed and OTHER_NAME.search(ref.path):
        return Skipped(ref.dicom_id, ref.path, "not_an_image", rejected.detail)
    return Failed(ref.dicom_id, ref.path, rejected.reason, rejected.detail)


def _os_detail(error: OSError) -> str:
    return one_line(error.strerror or error)


def slices(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """Returns `items` in pieces of `size`, the last one maybe shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Returns a pool of this process, shared by its walks."""
    # A cache by itself lets two threads make one each: the model would be called by both.
    with _making_a_pool:
        return _made_pool(name, threads)


@functools.cache
def _made_pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, f"cxr-embed-{name}")
