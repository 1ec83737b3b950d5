"""The Beam graph, thin: it moves images through the rooms and knows nothing of what they do.

    Create(chunks of refs) -> Reshuffle -> EmbedChunk -> run tables

Only references cross the shuffle on the way in, and only lines of the run tables on the way out.
Reading, embedding and writing are one step, so an image lives from its bytes to its record in one
place, and memory holds a few images a thread, however many there are.

A chunk is a list of references (`chunk_sizes` says how long). Beam's own way to an element, from
step to step and into its counters, takes as long as rendering a small image; here it is paid for a
chunk (benchmarks/pipeline_tax.py). What a chunk's images do is `walk.Walk`'s matter: batches,
threads, what one failure may cost. The threads are this program's own, so that decoding overlaps
the model whatever the runner. The in-process runner stays in its single-threaded mode: in its mode
with threads (2.77), bundles travel through gRPC, which costs 200 MB, and one run in several of many
quick elements lost some of them.

The walk is also why the model's step is no RunInference of Beam's: as a step
of its own it costs the same as a batched DoFn (benchmarks/inference_step.py), but it gives a whole
batch up for one failed image and pickles each batch to count its bytes, and its TensorFlow handler
loads Keras and TF Hub models only.
"""

from __future__ import annotations

import pickle
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.window import GlobalWindows

from cxr_embed import cloud_job, ledger, monitor, runs, storage
from cxr_embed.errors import UsageError, one_line
from cxr_embed.sources import ImageRef
from cxr_embed.storage import gcs
from cxr_embed.walk import EmbedSettings, Walk, Walked
from cxr_embed.work_list import read_work_list, write_work_list

NAMESPACE = "cxr_embed"

# A file of the run's folder, and a list of its lines, packed.
_Lines = tuple[str, bytes]

# Images in a chunk, at most: enough to forget what Beam costs, few enough that a cloud runner can
# spread them, and that little is done twice where a worker is lost.
_CHUNK = 64

# Towards the end a chunk is this part of each walk's share of what is left.
_SHARES = 4


class EmbedChunk(beam.DoFn):
    """A packed list of ImageRef -> lines of the run's tables, with the records written.

    Several chunks are under way at a time, in threads of this process's own; what came of one is
    told while later ones walk. A bundle ends when all of its chunks have.
    """

    def __init__(self, settings: EmbedSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        gcs.configure(self._settings.bucket_access)
        self._walk = Walk(self._settings)

    def start_bundle(self) -> None:
        self._under_way: deque[Future[Walked]] = deque()

    def process(self, chunk: bytes) -> Iterator[_Lines]:
        self._under_way.append(self._walk.start(unpacked(chunk)))
        # Enough are kept waiting that no thread runs dry behind a slow chunk.
        if len(self._under_way) > 2 * self._walk.threads.walks:
            yield from self._end_oldest()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield from map(GlobalWindows.windowed_value, self._end_oldest())

    def _end_oldest(self) -> Iterator[_Lines]:
        try:
            walked = self._under_way.popleft().result()
        except BaseException:
            for other in self._under_way:
                other.cancel()
            raise
        for name, number in walked.counts.items():
            Metrics.counter(NAMESPACE, name).inc(number)
        for name, lines in _lines(walked).items():
            yield name, packed(lines)


def packed(items: list[Any]) -> bytes:
    """Returns a list as few bytes: paths are much alike, and all of a run's are in the graph."""
    return zlib.compress(pickle.dumps(items), 1)


def unpacked(data: bytes) -> Any:
    """Returns the list that was packed."""
    return pickle.loads(zlib.decompress(data))


def _lines(walked: Walked) -> dict[str, list[bytes]]:
    tables: dict[str, list[bytes]] = {}
    for outcome in walked.outcomes:
        table, row = runs.table_row(outcome)
        tables.setdefault(f"{table}.csv", []).append(row)
    if walked.checked:
        tables[ledger.WRITTEN] = [ledger.encode([line]) for line in walked.checked]
    return tables


class WriteLines(beam.DoFn):
    """(file, packed lists of lines) -> the file in the run's folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._bucket_access = gcs.settings()

    def setup(self) -> None:
        gcs.configure(self._bucket_access)

    def process(self, element: tuple[str, Iterable[bytes]]) -> None:
        name, lists = element
        runs.write_lines(self._folder, name, (line for lines in lists for line in unpacked(lines)))


class EmbedImages(beam.PTransform):
    """PCollection of packed chunks of ImageRef -> PCollection of lines for the run's tables."""

    def __init__(self, settings: EmbedSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        embed = beam.ParDo(EmbedChunk(self._settings)).with_output_types(_Lines)
        return chunks | "Spread" >> beam.Reshuffle() | "Embed" >> embed


class WriteRunTables(beam.PTransform):
    """PCollection of lines -> the run's CSV tables; all of them, empty ones too."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, lines: beam.PCollection) -> beam.PCollection:
        none: list[_Lines] = [(f"{name}.csv", packed([])) for name in runs.TABLES]
        empty = lines.pipeline | "Tables" >> beam.Create(none).with_output_types(_Lines)
        return (
            (empty, lines)
            | "Lines" >> beam.Flatten()
            | "Gather" >> beam.GroupByKey()
            | "WriteLines" >> beam.ParDo(WriteLines(self._folder))
        )


def chunk_sizes(count: int, batch_size: int, walks: int) -> Iterator[int]:
    """Yields how many images walk together, chunk by chunk: whole batches, the last one maybe not.

    Args:
        count: images in all.
        batch_size: images per model call; 0 where workers choose it.
        walks: about how many chunks are under way at a time.

    Yields:
        64 images or a little less, or one batch where that is more; fewer where there are few
        images. Towards the end fewer and fewer, down to one batch: a share of what is left, so that
        all walks end together. Where workers choose the batch size chunks do not shrink: the last
        ones would be less than a batch.
    """
    unit = max(1, batch_size)
    size = 0
    while count > 0:
        if batch_size or not size:
            share = count // (_SHARES * max(1, walks) * unit)
            size = max(1, min(_CHUNK // unit, share)) * unit
        yield min(count, size)
        count -= size


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
    *,
    walks: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, int] | HandedOver:
    """Builds the graph and runs it to its end, unless the flags say that others will.

    Args:
        refs: the images to embed.
        settings: what to do with them.
        runner: a Beam runner's name.
        beam_arguments: Beam's flags.
        walks: about how many chunks will be under way at a time.
        say: tells a person one line.

    Returns:
        Counters by name, as `Walked.counts` has them. Or where the run went.
    """
    options = PipelineOptions(beam_arguments)
    pipeline = beam.Pipeline(runner=runner, options=options)
    folder = runs.run_folder(settings.output_path, settings.run_id)
    images = _images(refs, settings.batch_size, walks, folder, runner)
    lines = pipeline | images | EmbedImages(settings)
    _ = lines | WriteRunTables(folder)
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


def _images(
    refs: list[ImageRef], batch_size: int, walks: int, folder: str, runner: str
) -> beam.PTransform:
    """PBegin -> PCollection of packed chunks of ImageRef."""
    if runner == "FnApiRunner" or not storage.is_remote(folder):
        packs = list(chunks(refs, batch_size, walks))
        return "Images" >> beam.Create(packs, reshuffle=False)
    return "Images" >> ListedImages(write_work_list(folder, refs), batch_size, walks)


def chunks(refs: Sequence[ImageRef], batch_size: int, walks: int) -> Iterator[bytes]:
    """Yields all images, in order, as packed chunks; arguments as `chunk_sizes` has them."""
    start = 0
    for size in chunk_sizes(len(refs), batch_size, walks):
        yield packed(list(refs[start : start + size]))
        start += size


class ListedImages(beam.PTransform):
    """PBegin -> PCollection of packed chunks of ImageRef, from files of `write_work_list`."""

    def __init__(self, files: list[str], batch_size: int, walks: int) -> None:
        super().__init__()
        self._files = files
        self._read = ReadWorkList(batch_size, walks)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        read = beam.ParDo(self._read).with_output_types(bytes)
        return begin | "Files" >> beam.Create(self._files) | "ReadList" >> read


class ReadWorkList(beam.DoFn):
    """A file of references -> chunks of them."""

    def __init__(self, batch_size: int, walks: int) -> None:
        self._batch_size, self._walks = batch_size, walks
        self._bucket_access = gcs.settings()

    def setup(self) -> None:
        gcs.configure(self._bucket_access)

    def process(self, path: str) -> Iterator[bytes]:
        yield from chunks(read_work_list(path), self._batch_size, self._walks)


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
    runner = known.runner or ""
    try:
        if runner:
            create_runner(runner)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--runner {runner}: {one_line(error)}") from error
    return runner


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
