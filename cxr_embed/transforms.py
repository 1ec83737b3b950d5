"""The Beam graph, thin: it moves images through the rooms and knows nothing of what they do.

    Create(refs) -> Reshuffle -> ReadAndFit -> BatchElements -> Embed -> Write -> run tables

Only references cross the shuffle on the way in, and only lines of the run tables on the way out.
From reading to writing is one fused stage, so an image lives from its bytes to its record in one
thread, and memory holds a few images a thread, however many there are.

Embedding is BatchElements and a batched DoFn. Beam's RunInference costs the same
(benchmarks/inference_step.py: 0.9 to 1.2 times, either way within noise), but it gives a whole
batch up for one failed image and pickles each batch to count its bytes, and its TensorFlow handler
loads Keras and TF Hub models only. With these overridden, nothing of it is left that serves here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import apache_beam as beam
import cv2
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)

from cxr_embed import cloud_job, gcs, models, monitor, runs, storage
from cxr_embed.errors import ImageRejected, ImageSkipped, UsageError, one_line
from cxr_embed.file_types import OTHER_NAME
from cxr_embed.image_files import read_image
from cxr_embed.outcomes import Embedded, Failed, Outcome, Skipped
from cxr_embed.records import Record, encode_record
from cxr_embed.sources import ImageRef
from cxr_embed.work_list import read_work_list, write_work_list

NAMESPACE = "cxr_embed"

_OUTCOMES = "outcomes"


@dataclass(frozen=True)
class EmbedSettings:
    """All that the graph needs besides the references; small, and pickles.

    Attributes:
        run_id: the run's name; its folder below the output bears it.
        output_path: where records go.
        model: what to load on each worker.
        batch_size: images per model call.
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
class EmbeddedImage:
    """An image between embedding and writing."""

    image: FittedImage
    embedding: np.ndarray


class _Stage(beam.DoFn):
    """A step that counts outcomes and the seconds spent."""

    def __init__(self, settings: EmbedSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        gcs.configure(self._settings.bucket_access)
        self._monitor = monitor.monitor_of(self._settings.run_id, self._settings.max_failures)
        self._model = models.shared(self._settings.model)

    def _count_seconds(self, stage: str, since: float) -> float:
        now = time.perf_counter()
        Metrics.counter(NAMESPACE, f"{stage}_microseconds").inc(int((now - since) * 1e6))
        return now

    def _finish(self, outcome: Outcome) -> Outcome:
        """Counts an image's end, once, where it happens."""
        kind = monitor.kind_of(outcome)
        name = kind if isinstance(outcome, Embedded) else f"{kind}/{outcome.reason}"
        Metrics.counter(NAMESPACE, name).inc()
        self._monitor.record(outcome)
        return outcome


class ReadAndFit(_Stage):
    """ImageRef -> FittedImage, or a Skipped or Failed on the side."""

    def setup(self) -> None:
        super().setup()
        # Images are spread over threads already; OpenCV's own would only get in their way.
        cv2.setNumThreads(1)

    def process(self, ref: ImageRef) -> Iterator[Any]:
        if self._monitor.is_stopping:
            return
        started = time.perf_counter()
        try:
            data = storage.read_bytes(ref.path)
            Metrics.counter(NAMESPACE, "bytes_read").inc(len(data))
            started = self._count_seconds("read", started)
            radiograph = read_image(
                data,
                self._settings.file_type,
                self._settings.rendering,
                max_pixels=self._settings.max_pixels,
                views=self._settings.views,
            )
            started = self._count_seconds("decode_and_render", started)
            fitted = self._model.fit(radiograph)
            self._count_seconds("fit", started)
        except ImageSkipped as skipped:
            outcome: Outcome = Skipped(ref.dicom_id, ref.path, skipped.reason, skipped.detail)
        except ImageRejected as rejected:
            outcome = _rejected(ref, rejected)
        except OSError as error:
            outcome = Failed(ref.dicom_id, ref.path, "read_error", _os_detail(error))
        else:
            rows, columns = radiograph.pixels.shape
            yield FittedImage(ref, fitted, rows, columns, tuple(radiograph.warnings))
            return
        yield beam.pvalue.TaggedOutput(_OUTCOMES, self._finish(outcome))


def _rejected(ref: ImageRef, rejected: ImageRejected) -> Outcome:
    # Folders of images hold reports and licences, too. What a search came across, is named like
    # something else and is something else, is not a failure.
    if rejected.reason == "not_an_image" and not ref.is_listed and OTHER_NAME.search(ref.path):
        return Skipped(ref.dicom_id, ref.path, "not_an_image", rejected.detail)
    return Failed(ref.dicom_id, ref.path, rejected.reason, rejected.detail)


def _os_detail(error: OSError) -> str:
    return one_line(error.strerror or error)


class Embed(_Stage):
    """A batch of FittedImage -> EmbeddedImages; one bad image does not cost its neighbours."""

    def process(self, batch: list[FittedImage]) -> Iterator[Any]:
        started = time.perf_counter()
        Metrics.distribution(NAMESPACE, "batch_size").update(len(batch))
        results = models.embed_each(self._model, [image.fitted for image in batch])
        self._count_seconds("infer", started)
        for image, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                yield self._failed(image, "model_error", one_line(result))
            elif np.isfinite(result).all():
                yield EmbeddedImage(image, result)
            else:
                yield self._failed(image, "not_finite", "the model gave NaN or infinity")

    def _failed(self, image: FittedImage, reason: str, detail: str) -> Any:
        outcome = Failed(image.ref.dicom_id, image.ref.path, reason, detail)
        return beam.pvalue.TaggedOutput(_OUTCOMES, self._finish(outcome))


class Write(_Stage):
    """EmbeddedImage -> its record in the output, and its Outcome."""

    def process(self, embedded: EmbeddedImage) -> Iterator[Outcome]:
        started = time.perf_counter()
        image, ref = embedded.image, embedded.image.ref
        try:
            storage.write_whole(
                storage.join(self._settings.output_path, ref.record),
                encode_record(Record(ref.path, embedded.embedding)),
            )
        except OSError as error:
            yield self._finish(Failed(ref.dicom_id, ref.path, "write_error", _os_detail(error)))
            return
        self._count_seconds("write", started)
        yield self._finish(
            Embedded(ref.dicom_id, ref.path, ref.record, image.rows, image.columns, image.warnings)
        )


class WriteTable(beam.DoFn):
    """(table, rows) -> one CSV file in the run's folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._bucket_access = gcs.settings()

    def setup(self) -> None:
        gcs.configure(self._bucket_access)

    def process(self, element: tuple[str, Iterable[str]]) -> None:
        table, rows = element
        runs.write_table(self._folder, table, (row for row in rows if row))


class EmbedImages(beam.PTransform):
    """PCollection of ImageRef -> PCollection of Outcome, with the records written."""

    def __init__(self, settings: EmbedSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, refs: beam.PCollection) -> beam.PCollection:
        settings = self._settings
        fitted = (
            refs
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(ReadAndFit(settings)).with_outputs(_OUTCOMES, main="images")
        )
        embedded = (
            fitted.images
            | "Batch" >> beam.BatchElements(settings.batch_size, settings.batch_size)
            | "Embed" >> beam.ParDo(Embed(settings)).with_outputs(_OUTCOMES, main="images")
        )
        written = embedded.images | "Write" >> beam.ParDo(Write(settings))
        return (fitted[_OUTCOMES], embedded[_OUTCOMES], written) | "Ends" >> beam.Flatten()


class WriteRunTables(beam.PTransform):
    """PCollection of Outcome -> the run's CSV tables; all of them, empty ones too."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, outcomes: beam.PCollection) -> beam.PCollection:
        headers = outcomes.pipeline | "Tables" >> beam.Create([(name, "") for name in runs.TABLES])
        rows = outcomes | "Row" >> beam.Map(runs.table_row)
        return (
            (headers, rows)
            | "Rows" >> beam.Flatten()
            | "Gather" >> beam.GroupByKey()
            | "WriteTable" >> beam.ParDo(WriteTable(self._folder))
        )


@dataclass(frozen=True)
class HandedOver:
    """A run that goes on, or will be started, where nobody here waits for it.

    Attributes:
        to: a template's path, or a job's name, for people.
    """

    to: str


def run(
    refs: list[ImageRef],
    settings: EmbedSettings,
    runner: str,
    beam_arguments: list[str],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, int] | HandedOver:
    """Builds the graph and runs it to its end, unless the flags say that others will.

    Args:
        refs: the images to embed.
        settings: what to do with them.
        runner: a Beam runner's name.
        beam_arguments: the user's Beam flags.
        say: tells a person one line.

    Returns:
        Counters by name: `embedded`, `failed/<reason>`, `skipped/<reason>`,
        `<stage>_microseconds`, `bytes_read`. Or where the run went.
    """
    options = PipelineOptions(beam_arguments)
    pipeline = beam.Pipeline(runner=runner, options=options)
    folder = runs.run_folder(settings.output_path, settings.run_id)
    outcomes = pipeline | _images(refs, folder, runner) | EmbedImages(settings)
    _ = outcomes | WriteRunTables(folder)
    result = pipeline.run()
    if template := options.view_as(GoogleCloudOptions).template_location:
        return HandedOver(f"the template {template}")
    job = cloud_job.describe(result, options)
    if job:
        say(f"running as {job}")
    if options.view_as(StandardOptions).no_wait_until_finish and runner != "FnApiRunner":
        return HandedOver(job or runner)
    with cloud_job.followed(result, monitor.monitor_of(settings.run_id), counters_of, bool(job)):
        result.wait_until_finish()
    return counters_of(result)


def _images(refs: list[ImageRef], folder: str, runner: str) -> beam.PTransform:
    """PBegin -> PCollection of ImageRef."""
    if runner == "FnApiRunner" or not storage.is_remote(folder):
        return "Images" >> beam.Create(refs)
    return "Images" >> ListedImages(write_work_list(folder, refs))


class ListedImages(beam.PTransform):
    """PBegin -> PCollection of ImageRef, from files that `write_work_list` wrote."""

    def __init__(self, files: list[str]) -> None:
        super().__init__()
        self._files = files

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        files = begin | "Files" >> beam.Create(self._files)
        return files | "ReadList" >> beam.ParDo(ReadWorkList()).with_output_types(ImageRef)


class ReadWorkList(beam.DoFn):
    """A file of references -> each of them."""

    def __init__(self) -> None:
        self._bucket_access = gcs.settings()

    def setup(self) -> None:
        gcs.configure(self._bucket_access)

    def process(self, path: str) -> Iterator[ImageRef]:
        yield from read_work_list(path)


def counters_of(result: Any) -> dict[str, int]:
    """Returns a run's counters by name, as far as the runner knows them by now."""
    query = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counters: dict[str, int] = {}
    for counter in query["counters"]:
        name = counter.key.metric.name
        counters[name] = counters.get(name, 0) + (counter.result or 0)
    return counters


class UnknownFlags(UsageError):
    """Flags that Beam does not know either, in `flags`."""

    def __init__(self, flags: list[str]) -> None:
        self.flags = flags
        super().__init__(f"unknown flag {flags[0]}")


def check_beam_flags(arguments: list[str]) -> str:
    """Checks the flags that are not ours against all that Beam knows.

    Returns:
        The runner's name, empty where none was given.

    Raises:
        UsageError: Beam does not know one either (`UnknownFlags`), or not its value.
    """
    parser = _StrictParser(allow_abbrev=False, add_help=False)
    for options_class in _subclasses(PipelineOptions):
        options_class._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UnknownFlags(unknown)
    return known.runner or ""


def without_runner(arguments: list[str]) -> list[str]:
    """Returns Beam flags with --runner taken out, in either way of writing it."""
    parser = _StrictParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runner")
    return parser.parse_known_args(arguments)[1]


class _StrictParser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _subclasses(parent: type) -> list[Any]:
    found: dict[Any, None] = {}
    child: Any
    for child in parent.__subclasses__():
        if "_add_argparse_args" in child.__dict__:
            found[child] = None
        found.update(dict.fromkeys(_subclasses(child)))
    return list(found)
