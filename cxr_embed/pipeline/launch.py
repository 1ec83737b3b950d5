"""Runs the main job's graph on the runner that the flags name, and follows it."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.portability.portable_runner import PipelineResult as PortableResult

from cxr_embed import storage
from cxr_embed.elements import ImageRef
from cxr_embed.errors import MachineFault, PlaceLost
from cxr_embed.pipeline import graph
from cxr_embed.pipeline.concurrency import NAMESPACE
from cxr_embed.pipeline.listing import ListedImages, write_work_list

# Beam's own default tries to download another runner; everybody gets the in-process one.
LOCAL_RUNNER = "FnApiRunner"

_ASK_EVERY_SECONDS = 30.0


@dataclass
class Metrics:
    """What Beam's metrics give of our namespace.

    Attributes:
        counters: counters by name, summed over steps.
        distributions: `{"count", "sum", "min", "max"}` by name: those of `RunInference`.
    """

    counters: dict[str, int] = field(default_factory=dict)
    distributions: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class Ended:
    """How a run of the graph ended.

    Attributes:
        metrics: as far as the runner gave them.
        handed_over: the template or job that the run was handed over to, if it was not waited for.
    """

    metrics: Metrics = field(default_factory=Metrics)
    handed_over: str = ""


def run(
    refs: Sequence[ImageRef],
    settings: graph.GraphSettings,
    run_folder: str,
    runner: str,
    beam_arguments: Sequence[str],
    *,
    log: Callable[[str], None] = lambda line: None,
    on_counters: Callable[[dict[str, int]], bool] = lambda counters: True,
) -> Ended:
    """Builds the graph and runs it to its end, unless the flags hand it over.

    Args:
        refs: the images to embed.
        settings: what to do with them.
        run_folder: where lists of images for workers elsewhere go.
        runner: a Beam runner's name.
        beam_arguments: Beam's flags.
        log: logs one line for the user.
        on_counters: called now and then with a remote job's counters; False cancels the job.

    Raises:
        MachineFault: the work ended for a reason that would affect any image.
        Exception: the runner's own.
    """
    options = PipelineOptions(list(beam_arguments))
    pipeline = beam.Pipeline(runner=runner, options=options)
    graph.build(pipeline, _images(refs, run_folder, runner), settings)
    try:
        result = pipeline.run()
        if template := options.view_as(GoogleCloudOptions).template_location:
            return Ended(handed_over=f"the template {template}")
        if job := describe(result, options):
            log(f"running as {job}")
        if options.view_as(StandardOptions).no_wait_until_finish and runner != LOCAL_RUNNER:
            return Ended(handed_over=job or runner)
        with followed(result, on_counters, is_elsewhere=runner != LOCAL_RUNNER):
            result.wait_until_finish()
    except Exception as error:
        if fault := fault_in(error):
            raise fault from error
        raise
    return Ended(metrics_of(result))


def _images(refs: Sequence[ImageRef], run_folder: str, runner: str) -> beam.PTransform:
    if runner == LOCAL_RUNNER or not storage.is_remote(run_folder):
        return beam.Create(refs, reshuffle=False).with_output_types(ImageRef)
    return ListedImages(write_work_list(run_folder, refs))


_FAULTS = {kind.__name__: kind for kind in (MachineFault, PlaceLost)}
_FAULT = re.compile(rf"\b({'|'.join(_FAULTS)}): (.+?)(?: \[while running|\\n|\n|$)")


def fault_in(error: BaseException) -> MachineFault | None:
    """Returns the machine's fault that ended a run, which runners wrap or pass on as text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MachineFault):
            return type(cause)(str(cause).partition(" [while running")[0])
        cause = cause.__cause__ or cause.__context__
    found = _FAULT.search(str(error))
    return _FAULTS[found[1]](found[2]) if found else None


def describe(result: Any, options: PipelineOptions) -> str:
    """Returns a Dataflow job's id and where to watch it; empty for any other runner."""
    if not getattr(result, "has_job", False):
        return ""
    cloud = options.view_as(GoogleCloudOptions)
    console = "https://console.cloud.google.com/dataflow/jobs"
    return (
        f"Dataflow job {result.job_id()}: "
        f"{console}/{cloud.region}/{result.job_id()}?project={cloud.project}"
    )


@contextlib.contextmanager
def followed(
    result: Any,
    on_counters: Callable[[dict[str, int]], bool],
    *,
    is_elsewhere: bool,
    every_seconds: float = _ASK_EVERY_SECONDS,
) -> Iterator[None]:
    """Asks for a remote job's counters now and then.

    Args:
        result: Beam's pipeline result.
        on_counters: gets the counters by name; False cancels the job.
        is_elsewhere: nothing happens otherwise.
        every_seconds: how often to ask.
    """
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(every_seconds):
            with contextlib.suppress(Exception):  # the service may be busy; the next time counts
                if not on_counters(metrics_of(result).counters):
                    result.cancel()
                    return

    thread = threading.Thread(target=ask, daemon=True)
    if is_elsewhere:
        thread.start()
    try:
        yield
    finally:
        ended.set()


def metrics_of(result: Any) -> Metrics:
    """Returns a run's metrics, as far as the runner knows them by now."""
    if isinstance(result, PortableResult):
        result._metrics = None  # it would repeat its first answer, whenever that was asked for
    query = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    found = Metrics()
    for counter in query["counters"]:
        name = counter.key.metric.name
        found.counters[name] = found.counters.get(name, 0) + (counter.result or 0)
    for distribution in query["distributions"]:
        value = distribution.result
        if value is None or not value.count:
            continue
        new = {"count": value.count, "sum": value.sum, "min": value.min, "max": value.max}
        old = found.distributions.get(distribution.key.metric.name)
        if old is not None:
            new = {
                "count": old["count"] + new["count"],
                "sum": old["sum"] + new["sum"],
                "min": min(old["min"], new["min"]),
                "max": max(old["max"], new["max"]),
            }
        found.distributions[distribution.key.metric.name] = new
    return found
