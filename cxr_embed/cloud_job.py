"""A job on somebody else's machines, seen from the process that started it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cxr_embed import storage
from cxr_embed.errors import UsageError
from cxr_embed.monitor import RunMonitor

_ASK_EVERY_SECONDS = 30.0

_KINDS = ("embedded", "skipped", "failed")

# Our classes are imported on the workers, so nothing of the launching program has to travel.
_NO_MAIN_SESSION = "--no_save_main_session"


def describe(result: Any, options: Any) -> str:
    """Returns a Dataflow job's id and where to watch it; empty for any other runner."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    if not getattr(result, "has_job", False):
        return ""
    cloud = options.view_as(GoogleCloudOptions)
    console = "https://console.cloud.google.com/dataflow/jobs"
    return (
        f"Dataflow job {result.job_id()}: "
        f"{console}/{cloud.region}/{result.job_id()}?project={cloud.project}"
    )


def check_paths(runner: str, output_path: str, images: Iterable[str]) -> None:
    """Raises UsageError where Dataflow's workers would look for a path on their own disks."""
    if runner != "DataflowRunner":
        return
    if not storage.is_remote(output_path):
        raise UsageError(
            f"--output_path {output_path} is on this machine, and Dataflow's workers are not: "
            "pass gs://bucket/prefix"
        )
    local = next((path for path in images if not storage.is_remote(path)), None)
    if local is not None:
        raise UsageError(
            f"{local} is on this machine, and Dataflow's workers are not: copy the images to a "
            "bucket (gcloud storage cp -r) and pass gs:// paths"
        )


def with_defaults(beam_arguments: list[str]) -> list[str]:
    """Returns the user's Beam flags for a runner elsewhere, with what this program needs there."""
    if any(flag.endswith("save_main_session") for flag in beam_arguments):
        return beam_arguments
    return [*beam_arguments, _NO_MAIN_SESSION]


@contextlib.contextmanager
def followed(
    result: Any,
    monitor: RunMonitor,
    counters_of: Callable[[Any], dict[str, int]],
    is_elsewhere: bool,
    every_seconds: float = _ASK_EVERY_SECONDS,
) -> Iterator[None]:
    """Keeps a monitor up to date with the counters of a job elsewhere.

    Args:
        result: Beam's pipeline result.
        monitor: counts of this process, which that job does not feed.
        counters_of: asks the service.
        is_elsewhere: nothing happens otherwise.
        every_seconds: how often to ask.
    """
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(every_seconds):
            with contextlib.suppress(Exception):  # the service may be busy; the next time counts
                monitor.set_counts(by_kind(counters_of(result)))

    thread = threading.Thread(target=ask, daemon=True)
    if is_elsewhere:
        thread.start()
    try:
        yield
    finally:
        ended.set()


def by_kind(counters: dict[str, int]) -> dict[str, int]:
    """Returns counters as a monitor counts: `embedded`, `skipped` and `failed`."""
    return {
        kind: sum(number for name, number in counters.items() if name.partition("/")[0] == kind)
        for kind in _KINDS
    }
