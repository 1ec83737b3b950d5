"""A job elsewhere, seen from here."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cxr_embed.monitor import RunMonitor

from cxr_embed import cloud_job
from cxr_embed.errors import UsageError


def test_counters_become_progress() -> None:
    counters = {"embedded": 5, "failed/truncated": 2, "failed/bad_window": 1, "bytes_read": 99}
    assert cloud_job.by_kind(counters) == {"embedded": 5, "skipped": 0, "failed": 3}


def test_a_monitor_follows_a_job_elsewhere_and_survives_a_busy_service() -> None:
    monitor, asked = RunMonitor(), []

    def counters_of(result: Any) -> dict[str, int]:
        asked.append(result)
        if len(asked) == 1:
            raise ConnectionError("busy")
        return {"embedded": 7}

    with cloud_job.followed("job", monitor, counters_of, True, every_seconds=0.01):
        deadline = time.monotonic() + 30
        while not monitor.counts().get("embedded"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert monitor.counts()["embedded"] == 7
    assert set(asked) == {"job"}


def test_a_job_here_is_not_asked() -> None:
    monitor = RunMonitor()
    with cloud_job.followed("job", monitor, lambda result: {"embedded": 7}, False, 0.001):
        time.sleep(0.05)
    assert monitor.counts() == {}


def test_the_main_session_stays_at_home_unless_asked_for() -> None:
    assert cloud_job.with_defaults(["--region=x"]) == ["--region=x", "--no_save_main_session"]
    assert cloud_job.with_defaults(["--save_main_session"]) == ["--save_main_session"]


def test_only_dataflow_is_refused_paths_on_this_machine() -> None:
    cloud_job.check_paths("PortableRunner", "out", ["in/1.dcm"])
    cloud_job.check_paths("DataflowRunner", "gs://b/out", ["gs://b/1.dcm"])
    with pytest.raises(UsageError, match=r"in/1\.dcm is on this machine"):
        cloud_job.check_paths("DataflowRunner", "gs://b/out", ["gs://b/1.dcm", "in/1.dcm"])
    with pytest.raises(UsageError, match="--output_path out is on this machine"):
        cloud_job.check_paths("DataflowRunner", "out", [])
