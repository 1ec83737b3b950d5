"""A bad line to the bucket, a killed run, a huge listing: nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import FAULTS, BadLine, HugeBucket, contents, emulator, spoken_to
from builders import make_dicom
from running import arguments_of, command, run_here

from cxr_embed import storage
from cxr_embed.cli import main, run
from cxr_embed.elements import RECORD_SUFFIX
from cxr_embed.outcomes import Failed
from cxr_embed.runs.folder import files_of
from cxr_embed.runs.tables import ShardWriter, merge
from cxr_embed.storage import find_images as sources
from cxr_embed.storage import gcs_client

COUNT = 200


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The emulator's address, with 200 images in gs://bucket/in."""
    with emulator() as address, spoken_to(address):
        numbers = np.random.default_rng(0)

        def put(number: int) -> None:
            data = make_dicom(numbers.integers(0, 4096, (8, 8), np.uint16))
            storage.write_whole(f"gs://bucket/in/{number:03d}.dcm", data)

        list(storage.in_parallel(put, range(COUNT)))
        yield address


@pytest.fixture(scope="module")
def undisturbed(service: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run on a good line gives, by record."""
    output = tmp_path_factory.mktemp("undisturbed")
    flags = {"input_path": "gs://bucket/in", "output_path": output, "model_path": tiny_model}
    assert main.guarded(run.main, arguments_of(**flags)) == 0
    return output


def expected_records(undisturbed: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in undisturbed.glob("*.tfrecord")}


def records_in(folder: str) -> dict[str, bytes]:
    return {k: v for k, v in contents(folder).items() if k.endswith(RECORD_SUFFIX)}


def test_a_bad_line_loses_and_doubles_nothing(
    service: str, undisturbed: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = BadLine(service, share=0.15)
    with line.open() as address, spoken_to(address):
        ran = run_here(
            capsys, input_path="gs://bucket/in", output_path="gs://bucket/bad-line",
            model_path=tiny_model,
        )  # fmt: skip
    assert set(line.happened) == set(FAULTS)
    assert sum(line.happened.values()) > COUNT / 10
    assert ran.status == 0, ran.err
    assert f"embedded       {COUNT}" in ran.out
    found = contents("gs://bucket/bad-line")
    expected = expected_records(undisturbed)
    assert {k: v for k, v in found.items() if k.endswith(RECORD_SUFFIX)} == expected
    rows = next(v for k, v in found.items() if k.endswith("/embedded.csv")).decode().splitlines()
    assert len(rows) == len({row.split(",")[0] for row in rows}) == COUNT + 1
    assert len(found) == COUNT + 1 + 4  # the records, the config, three tables and a manifest


def test_a_killed_run_is_taken_up_again(
    service: str, undisturbed: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = "gs://bucket/killed"
    flags = {"input_path": "gs://bucket/in", "output_path": output, "model_path": tiny_model}
    expected = expected_records(undisturbed)
    with subprocess.Popen(
        command(**flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while sum(1 for _ in storage.list_files(output)) < 20 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    found = records_in(output)
    assert 0 < len(found) < COUNT
    assert found.items() <= expected.items()
    ran = run_here(capsys, **flags)
    assert ran.status == 0
    assert f"already there  {len(found)}" in ran.out
    assert records_in(output) == expected


def test_a_service_that_stays_away_is_given_up_with_the_path_named(
    service: str, undisturbed: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = BadLine(service, share=1.0, faults=("unavailable",))
    with line.open() as address, spoken_to(address, retry_seconds=1):
        with pytest.raises(OSError, match=r"gs://bucket/in/000\.dcm: gave up after 1 s: 503"):
            storage.read_bytes("gs://bucket/in/000.dcm")
        assert 2 <= line.requests["GET"] < 20
        with pytest.raises(OSError, match="gs://bucket/x: gave up"):
            storage.write_whole("gs://bucket/x", b"x")
        ran = run_here(
            capsys, input_path="gs://bucket/in", output_path="gs://bucket/o", model_path=tiny_model
        )
        assert ran.status == 2
        assert "gs://bucket/in: gave up after 1 s" in ran.err
    with spoken_to("http://127.0.0.1:9", retry_seconds=1), pytest.raises(OSError, match="gave up"):
        storage.read_bytes("gs://bucket/in/000.dcm")


def test_a_read_is_one_request_and_so_is_a_write(service: str) -> None:
    line = BadLine(service, share=0)
    with line.open() as address, spoken_to(address):
        storage.write_whole("gs://bucket/one/request", b"data")
        assert line.requests == {"POST": 1}
        storage.read_bytes("gs://bucket/one/request")
        assert line.requests == {"POST": 1, "GET": 1}


def test_an_answer_cut_short_is_read_again_from_its_start(service: str) -> None:
    data = os.urandom(1 << 20)
    storage.write_whole("gs://bucket/cut", data)
    line = BadLine(service, share=0.7, faults=("answer_cut_short",))
    with line.open() as address, spoken_to(address):
        for _ in range(5):
            assert storage.read_bytes("gs://bucket/cut") == data
    assert line.happened["answer_cut_short"] >= 2


def test_large_files_are_fetched_over_a_bad_line(service: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    storage.write_whole("gs://bucket/weights", data)
    (entry,) = [e for e in storage.list_files("gs://bucket") if e.path == "weights"]
    line = BadLine(service, share=0.6, faults=("answer_cut_short", "hung_up"))
    with line.open() as address, spoken_to(address):
        for number in range(8):
            storage.download("gs://bucket/weights", tmp_path / "weights", entry.tag)
            assert (tmp_path / "weights").read_bytes() == data, number
    assert line.happened["answer_cut_short"]
    with spoken_to(service, retry_seconds=1), pytest.raises(OSError, match="gs://bucket/weights"):
        storage.download("gs://bucket/weights", tmp_path / "weights", "AAAAAA==")


def test_many_objects_are_listed_page_by_page() -> None:
    huge = HugeBucket(20_000)  # 100,000 take no more memory
    with huge.open() as address, spoken_to(address):
        next(storage.list_files("gs://bucket/files"))  # imports and connects
        huge.requests = 0
        tracemalloc.start()
        try:
            count = sum(1 for _ in storage.list_files("gs://bucket"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == 20_000
    assert huge.requests == 20
    assert peak < 6 << 20  # 1.6 MB; all of the client's objects at a time are 17 MB


def test_a_limit_ends_the_listing_early() -> None:
    huge = HugeBucket(100_000)
    with huge.open() as address, spoken_to(address):
        refs = sources.find_images("gs://bucket/files", limit=1500)
    assert len(refs) == 1500
    assert huge.requests == 2


def test_a_child_process_gets_a_client_of_its_own(service: str) -> None:
    storage.write_whole("gs://bucket/forked", b"data")
    before = gcs_client.client()
    pid = os.fork()
    if pid == 0:
        fresh = gcs_client.client() is not before
        same = storage.read_bytes("gs://bucket/forked") == b"data"
        os._exit(0 if fresh and same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert gcs_client.client() is before


def test_run_tables_are_written_whole_over_a_bad_line(service: str) -> None:
    line = BadLine(service, share=0.5)
    with line.open() as address, spoken_to(address):
        writer = ShardWriter("gs://bucket/t")
        for name in "ba":
            writer.add(Failed(name, "x" + name, "read_error", "y"))
            writer.flush()
        assert merge(files_of("gs://bucket/t")).failed == {"read_error": 2}
    text = storage.read_bytes("gs://bucket/t/failures.csv").decode()
    assert text.splitlines()[1:] == ["a,xa,read,read_error,y", "b,xb,read,read_error,y"]
