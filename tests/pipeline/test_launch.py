"""Running the graph: faults come back as they were raised, and a remote job is followed."""

from __future__ import annotations

import threading
import time
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import Metrics as Metered
from apache_beam.options.pipeline_options import PipelineOptions

from cxr_embed.errors import MachineFault, PlaceLost
from cxr_embed.pipeline import beam_flags, launch
from cxr_embed.pipeline.launch import Metrics, fault_in


@pytest.mark.parametrize("kind", [MachineFault, PlaceLost])
def test_a_fault_is_found_however_a_runner_wraps_it(kind: type[MachineFault]) -> None:
    fault = kind("/out: no space left [while running 'Write/Records']")
    wrapped = RuntimeError("bundle failed")
    wrapped.__cause__ = fault
    as_text = RuntimeError(
        f"Pipeline failed: Traceback ...\ncxr_embed.errors.{kind.__name__}: /out: no space left "
        "[while running 'Write/Records']\n\nsee the logs"
    )
    for error in (fault, wrapped, as_text):
        found = fault_in(error)
        assert type(found) is kind
        assert str(found) == "/out: no space left"
    assert fault_in(RuntimeError("a bug")) is None


class Job:
    """A job elsewhere, as its result shows it."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    def metrics_of(result: Any) -> Metrics:
        result.asked += 1
        if result.asked == 1:
            raise ConnectionError("busy")
        return Metrics({"failed/truncated": result.asked})

    monkeypatch.setattr(launch, "metrics_of", metrics_of)
    return Job()


def test_a_job_elsewhere_is_asked_again_and_again_and_survives_a_busy_service(job: Job) -> None:
    seen: list[dict[str, int]] = []
    with launch.followed(
        job, lambda c: bool(seen.append(c)) or True, is_elsewhere=True, every_seconds=0.01
    ):
        deadline = time.monotonic() + 300
        while len(seen) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert seen[0] == {"failed/truncated": 2}
    assert not job.cancelled.is_set()


def test_a_job_elsewhere_is_cancelled_when_too_many_images_failed(job: Job) -> None:
    with launch.followed(
        job, lambda c: c["failed/truncated"] < 4, is_elsewhere=True, every_seconds=0.01
    ):
        assert job.cancelled.wait(30)


def test_a_job_here_is_not_asked(job: Job) -> None:
    with launch.followed(job, lambda c: True, is_elsewhere=False, every_seconds=0.001):
        time.sleep(0.05)
    assert job.asked == 0


def test_the_main_session_stays_here_unless_asked_for() -> None:
    assert beam_flags.with_remote_defaults(["--region=x"]) == [
        "--region=x", "--no_save_main_session",
    ]  # fmt: skip
    assert beam_flags.with_remote_defaults(["--save_main_session"]) == ["--save_main_session"]


_MAY_GO_ON = threading.Event()


class _Counted(beam.DoFn):
    """Counts its elements, and waits after the first bundle."""

    def process(self, element: int) -> None:
        if element:
            assert _MAY_GO_ON.wait(60)
        Metered.counter(launch.NAMESPACE, "counted").inc()


def test_a_portable_runner_that_was_asked_amid_a_job_is_asked_again_at_its_end() -> None:
    """Its result keeps the first answer."""
    _MAY_GO_ON.clear()
    options = PipelineOptions(
        ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    )
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([0, 1, 2]) | beam.ParDo(_Counted())
    result = pipeline.run()
    assert launch.metrics_of(result).counters.get("counted", 0) < 3
    _MAY_GO_ON.set()
    result.wait_until_finish()
    assert launch.metrics_of(result).counters == {"counted": 3}
