"""Workers in processes of their own, started as a container's boot program starts them.

What the launching process pickles crosses to them over gRPC, and they import, unpickle, fetch and
load everything by themselves.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BadLine, contents, emulator, spoken_to, upload
from builders import GRADIENT, make_dicom
from onnx_graphs import save_graph
from running import Ran, arguments_of, command, run_here

from cxr_embed import storage
from cxr_embed.cli import main, run

COUNT = 40
ELSEWHERE = (
    "--runner=PortableRunner", "--job_endpoint=embed",
    "--environment_type=beam:env:harness_subprocess_python:v1",
)  # fmt: skip


@pytest.fixture(scope="module")
def service(tiny_model: Path) -> Iterator[str]:
    """An emulator with images, a file that is none, and a model."""
    with emulator() as address, spoken_to(address):
        for number in range(COUNT):
            data = make_dicom(np.roll(GRADIENT, 31 * number))
            storage.write_whole(f"gs://bucket/in/{number:02d}.dcm", data)
        storage.write_whole("gs://bucket/in/bad.dcm", b"rubbish")
        upload(tiny_model, "gs://bucket/model")
        yield address


@pytest.fixture(scope="module")
def expected(service: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the in-process runner gives."""
    output = tmp_path_factory.mktemp("here")
    flags = {"input_path": "gs://bucket/in", "output_path": output, "model_path": tiny_model}
    assert main.guarded(run.main, arguments_of(**flags)) == 1
    return output


def run_elsewhere(
    capsys: pytest.CaptureFixture[str], output: str, cache: Path, **flags: Any
) -> Ran:
    """Runs the job with workers that have a cache of their own, as on another machine."""
    worker = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    flags = {"input_path": "gs://bucket/in", "model_path": "gs://bucket/model"} | flags
    return run_here(
        capsys, *ELSEWHERE, f"--environment_config=XDG_CACHE_HOME={cache} exec {worker}",
        output_path=output, **flags,
    )  # fmt: skip


def test_workers_give_what_the_launching_process_would(
    service: str,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "launcher"))
    line = BadLine(service, share=0)
    with line.open() as address, spoken_to(address):
        ran = run_elsewhere(
            capsys, "gs://bucket/out", tmp_path / "worker", gcs_billing_project="who-pays"
        )
        assert ran.status == 1, ran.err
        assert f"embedded       {COUNT}" in ran.out
        assert "1 not_an_image" in ran.out
        found = contents("gs://bucket/out")
    assert {n: d for n, d in found.items() if n.endswith(".tfrecord")} == {
        path.name: path.read_bytes() for path in expected.glob("*.tfrecord")
    }
    # Launcher and worker each fetched the model, once.
    fetched = [path for path in line.paths if "variables.data" in path and "alt=media" in path]
    assert len(fetched) == 2
    assert len(list((tmp_path / "worker").glob("cxr-embed/models/bucket-*"))) == 1
    # What was said about paying reached the workers.
    assert [path for path in line.paths if "userProject=who-pays" not in path] == []
    manifest = json.loads(next(d for n, d in found.items() if n.endswith("manifest.json")))
    assert manifest["runner"] == "PortableRunner"
    assert manifest["counts"]["embedded"] == COUNT
    assert manifest["counts"]["failed"] == {"not_an_image": 1}
    assert manifest["counts"]["not_attempted"] == 0
    assert manifest["bytes_read"] > COUNT * GRADIENT.nbytes
    assert manifest["seconds"]["read"] > 0
    assert manifest["seconds"]["infer"] > 0
    for table, rows in (("embedded", COUNT), ("failures", 1), ("skipped", 0)):
        data = next(d for n, d in found.items() if n.endswith(f"/{table}.csv"))
        ours = list(csv.DictReader(io.StringIO(data.decode())))
        here = next(expected.glob(f"_runs/*/{table}.csv"))
        theirs = list(csv.DictReader(io.StringIO(here.read_text())))
        for row in ours + theirs:  # only a file on a disk has a state
            row.pop("file_state", None)
        assert ours == theirs
        assert len(ours) == rows


def test_workers_fetch_an_onnx_graph_with_its_data_file(
    service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = save_graph(tmp_path / "m/model.onnx", data_file="model.onnx.data")
    for path in graph.parent.iterdir():
        storage.write_whole(f"gs://bucket/onnx/{path.name}", path.read_bytes())
    flags = {"model_path": "gs://bucket/onnx/model.onnx", "limit": 3}
    ran = run_elsewhere(capsys, "gs://bucket/onnx-out", tmp_path / "worker", **flags)
    assert ran.status == 0, ran.err
    assert "with onnxruntime in float32" in ran.err
    (cached,) = (tmp_path / "worker").glob("cxr-embed/models/bucket-*")
    assert {path.name for path in cached.iterdir()} == {"model.onnx", "model.onnx.data"}
    here = run_here(
        capsys, input_path="gs://bucket/in", output_path=tmp_path / "here", model_path=graph,
        limit=3,
    )  # fmt: skip
    assert here.status == 0, here.err
    found = contents("gs://bucket/onnx-out")
    assert {n: d for n, d in found.items() if n.endswith(".tfrecord")} == {
        path.name: path.read_bytes() for path in (tmp_path / "here").glob("*.tfrecord")
    }
    # The model came from another place, and is the same.
    config = json.loads(found["_embedding_config.json"])
    assert config == json.loads((tmp_path / "here/_embedding_config.json").read_text())


def workers_of(launcher: int) -> list[int]:
    """Returns the worker processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == launcher and b"sdk_worker_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
def test_a_worker_that_dies_amid_a_bundle_leaves_whole_records(
    service: str, expected: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This runner gives up where Dataflow would start the bundle again; the next run does so."""
    whole = {path.name: path.read_bytes() for path in expected.glob("*.tfrecord")}
    output = "gs://bucket/died"

    def standing() -> dict[str, bytes]:
        return {n: d for n, d in contents(output).items() if n.endswith(".tfrecord")}

    worker = f"exec {sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    flags = {"input_path": "gs://bucket/in", "output_path": output, "model_path": tiny_model}
    with BadLine(service, share=1.0, faults=("slow",)).open() as address:
        launcher = subprocess.Popen(
            command(*ELSEWHERE, f"--environment_config={worker}", decode_threads=1, **flags),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"STORAGE_EMULATOR_HOST": address},
        )  # fmt: skip
        with launcher:
            deadline = time.monotonic() + 300
            while len(standing()) < 3 and launcher.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            (worker_id,) = workers_of(launcher.pid)
            os.kill(worker_id, signal.SIGKILL)
            assert launcher.wait(300) == 3
    assert len(standing()) < COUNT
    assert standing().items() <= whole.items()
    assert run_here(capsys, **flags).status == 1
    assert standing() == whole
