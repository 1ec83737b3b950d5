"""The main job as a Beam graph: what happens to a radiograph, from top to bottom.

    list of ImageRef -> Reshuffle -> Read -> Embed -> Write -> run tables

All steps after the Reshuffle are fused by every runner, so pixels never leave the process that
read them: only references cross the shuffle, and only outcomes go to the tables. There is no
Flatten in the way, because Beam's in-process runner would end the fused stage there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from cxr_embed.models import ModelSettings
from cxr_embed.outcomes import Outcome
from cxr_embed.pipeline.embed import EmbedRadiographs
from cxr_embed.pipeline.read import ReadRadiographs
from cxr_embed.pipeline.write import WriteRecords
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS


class OutcomeTables(Protocol):
    """Where outcomes go; pickled on its way to workers. See `cxr_embed.runs.run_tables`."""

    def open(self) -> None:
        """Prepares a worker; called once, before anything else."""

    def add(self, outcome: Outcome) -> None:
        """Adds one image's outcome."""

    def flush(self) -> None:
        """Returns once all that was added is stored."""

    def merge(self) -> None:
        """Makes the final tables of what all workers have stored."""


@dataclass(frozen=True)
class GraphSettings:
    """What the steps of the main job are made with; see there."""

    model: ModelSettings
    output_path: str
    tables: OutcomeTables
    batch_size: int = 0
    read_threads: int = 0
    waiting: int = 0
    file_type: str = "auto"
    rendering: str = "cxr_foundation"
    views: str = "all"
    max_pixels: int = DEFAULT_MAX_PIXELS
    cover: tuple[int, int] | None = None
    layout: str = "flat"
    replace: bool = False
    check_worker: Callable[[], None] | None = None


def build(pipeline: beam.Pipeline, images: beam.PTransform, job: GraphSettings) -> None:
    """Adds the main job to a pipeline.

    Args:
        pipeline: an empty pipeline.
        images: PBegin -> PCollection of `ImageRef`.
        job: settings of the steps.
    """
    refs = pipeline | "List" >> images | "Spread" >> beam.Reshuffle()

    read = refs | "Read" >> ReadRadiographs(
        rendering=job.rendering,
        file_type=job.file_type,
        views=job.views,
        max_pixels=job.max_pixels,
        threads=job.read_threads,
        waiting=job.waiting,
        cover=job.cover,
    )
    embed = read.radiographs | "Embed" >> EmbedRadiographs(job.model, job.batch_size)
    write = embed.embeddings | "Write" >> WriteRecords(
        job.output_path, job.layout, replace=job.replace, check=job.check_worker
    )

    stored = [
        outcomes | f"Tables/{name}" >> beam.ParDo(_AddToTables(job.tables))
        for name, outcomes in {
            "Embedded": write.embedded,
            "Skipped": read.skipped,
            "NotRead": read.failed,
            "NotEmbedded": embed.failed,
            "NotWritten": write.failed,
        }.items()
    ]
    # Each bundle yields one element when its rows are stored; the merge waits for all of them.
    _ = (
        stored
        | "Tables/Stored" >> beam.Flatten()
        | "Tables/All" >> beam.GroupByKey()
        | "Tables/Merge" >> beam.ParDo(_MergeTables(job.tables))
    )


class _AddToTables(beam.DoFn):
    """Outcome -> stored; one element a bundle says so."""

    def __init__(self, tables: OutcomeTables) -> None:
        self._tables = tables

    def setup(self) -> None:
        self._tables.open()

    def process(self, outcome: Outcome) -> None:
        self._tables.add(outcome)

    def finish_bundle(self) -> Iterator[Any]:
        self._tables.flush()
        yield GlobalWindows.windowed_value((None, 1))


class _MergeTables(beam.DoFn):
    """Runs once, after all rows are stored."""

    def __init__(self, tables: OutcomeTables) -> None:
        self._tables = tables

    def setup(self) -> None:
        self._tables.open()

    def process(self, _stored: Any) -> None:
        self._tables.merge()
