"""Jobs that Dataflow takes, with the real client and a stand-in that answers as the service does.

Nothing of the graph is run: what the service says of a job, and what becomes of it here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from buckets import contents, emulator, google_machine, serving, spoken_to
from builders import make_dicom
from running import Ran, run_here

from cxr_embed import storage

JOB = "2026-01-01_00_00_00-1234567890"
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "dataflow_gpu.flags"
COUNTERS = {"embedded": 4, "failed/truncated": 1, "bytes_read": 50_000, "infer_microseconds": 7}


class Service:
    """Takes one job, which goes through `states`, one at each time that somebody asks."""

    def __init__(self, *states: str) -> None:
        self._states = list(states)
        self.jobs: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        if path.endswith("/metrics"):
            # Each comes twice: what was attempted counts retried bundles, too.
            attempted = [
                self._metric(name, 2 * n, tentative="true") for name, n in COUNTERS.items()
            ]
            committed = [self._metric(name, n) for name, n in COUNTERS.items()]
            return {"metrics": attempted + committed}
        if path.endswith("/messages"):
            error = {"id": "1", "messageImportance": "JOB_MESSAGE_ERROR", "messageText": "no GPU"}
            return {"jobMessages": [error] if self._states[0] == "JOB_STATE_FAILED" else []}
        if method == "POST":
            self.jobs.append(body)
        elif len(self._states) > 1:
            self._states.pop(0)
        return {"id": JOB, "projectId": "some-project", "currentState": self._states[0]}

    def _metric(self, name: str, value: int, **more: str) -> dict[str, Any]:
        context = {"namespace": "cxr_embed", "step": "Embed"} | more
        return {"name": {"origin": "user", "name": name, "context": context}, "scalar": value}

    @contextlib.contextmanager
    def open(self) -> Iterator[str]:
        """Yields its address."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                answer = service.answer(self.command, path, json.loads(body or b"null"))
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        with serving(Handler) as address:
            yield address.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with emulator() as address, spoken_to(address), google_machine():
        for number in range(5):
            storage.write_whole(f"gs://bucket/in/{number}.dcm", make_dicom())
        yield "gs://bucket"


def start(
    capsys: pytest.CaptureFixture[str], service: Service, model: Path, output: str, *extra: str
) -> Ran:
    with service.open() as address:
        return run_here(
            capsys, f"--dataflow_endpoint={address}", "--no_auth", *extra, flagfile=CONFIG,
            project="some-project", region="us-central1", temp_location="gs://bucket/tmp",
            input_path="gs://bucket/in", output_path=output, model_path=model,
            sdk_container_image="image:1",
        )  # fmt: skip


def manifest_of(output: str) -> dict[str, Any]:
    found = contents(output)
    loaded: dict[str, Any] = json.loads(
        next(data for name, data in found.items() if name.endswith("manifest.json"))
    )
    return loaded


def test_a_job_is_waited_for_and_its_counters_are_the_manifests(
    bucket: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service("JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_DONE")
    ran = start(capsys, service, tiny_model, f"{bucket}/waited")
    assert ran.status == 1, ran.err
    assert len(service.jobs) == 1
    assert f"/dataflow/jobs/us-central1/{JOB}?project=some-project" in ran.err
    assert "embedded       4" in ran.out
    assert "1 truncated" in ran.out
    manifest = manifest_of(f"{bucket}/waited")
    assert manifest["counts"]["failed"] == {"truncated": 1}
    assert manifest["bytes_read"] == 50_000
    assert manifest["seconds"]["infer"] == 0.0
    assert manifest["runner"] == "DataflowRunner"


def test_a_job_may_be_left_alone(
    bucket: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service("JOB_STATE_PENDING")
    ran = start(capsys, service, tiny_model, f"{bucket}/left", "--no_wait_until_finish")
    assert ran.status == 0, ran.err
    assert f"handed over    to Dataflow job {JOB}" in ran.out
    assert JOB in manifest_of(f"{bucket}/left")["handed_over"]


def test_a_job_that_failed_broke_the_run(
    bucket: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service("JOB_STATE_RUNNING", "JOB_STATE_FAILED")
    ran = start(capsys, service, tiny_model, f"{bucket}/failed")
    assert ran.status == 3
    assert "no GPU" in ran.err.splitlines()[-1]
