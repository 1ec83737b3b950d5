"""gs:// in and out, with the real client against a stand-in for the service on the loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from running import run_here

import cxr_embed
from cxr_embed import storage
from cxr_embed.cli import inspect, main

EMULATOR = """
import sys
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket, gs://bucket."""
    pytest.importorskip("gcp_storage_emulator")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", EMULATOR, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        storage._client.cache_clear()
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield "gs://bucket"
    storage._client.cache_clear()
    server.kill()
    server.wait()


def test_files_are_listed_read_and_written_as_on_disk(bucket: str) -> None:
    for name in ("a/1.dcm", "a/b/2.dcm", "c.txt"):
        storage.write_whole(f"{bucket}/files/{name}", name.encode())
    listed = {entry.path: entry.size for entry in storage.list_files(f"{bucket}/files")}
    assert listed == {"a/1.dcm": 7, "a/b/2.dcm": 9, "c.txt": 5}
    assert storage.read_bytes(f"{bucket}/files/c.txt") == b"c.txt"
    assert storage.expand(f"{bucket}/files/a/*.dcm") == [f"{bucket}/files/a/1.dcm"]
    assert len(storage.expand(f"{bucket}/files/**/*.dcm")) == 2
    storage.remove(f"{bucket}/files/c.txt")
    storage.remove(f"{bucket}/files/c.txt")
    assert not storage.exists(f"{bucket}/files/c.txt")


def test_what_is_missing_is_a_missing_file(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match="gs://bucket/none"):
        storage.read_bytes(f"{bucket}/none")
    with pytest.raises(FileNotFoundError, match="gs://no-bucket"):
        list(storage.list_files("gs://no-bucket/x"))


def test_the_whole_job_in_a_bucket(
    bucket: str, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        data = make_dicom(np.roll(GRADIENT, 900 * number))
        storage.write_whole(f"{bucket}/in/s{number % 2}/{number}.dcm", data)
    storage.write_whole(f"{bucket}/in/bad.dcm", b"rubbish")
    for entry in small_model.rglob("*"):
        if entry.is_file():
            name = entry.relative_to(small_model).as_posix()
            storage.write_whole(f"{bucket}/model/{name}", entry.read_bytes())
    flags = {
        "input_path": f"{bucket}/in", "output_path": f"{bucket}/out",
        "model_path": f"{bucket}/model", "output_layout": "mirror",
    }  # fmt: skip
    ran = run_here(capsys, **flags)
    assert ran.status == 1, ran.err
    assert "embedded       4" in ran.out
    names = {entry.path for entry in storage.list_files(f"{bucket}/out")}
    assert {"s0/0.tfrecord", "s1/3.tfrecord", "_embedding_config.json"} < names
    assert sum(name.startswith("_runs/") for name in names) == 4
    again = run_here(capsys, **flags)
    assert "already there  4" in again.out
    embeddings = cxr_embed.load_embeddings(f"{bucket}/out")
    assert embeddings.ids == ["0", "2", "1", "3"]
    assert embeddings.image_ids[0] == f"{bucket}/in/s0/0.dcm"
    assert embeddings.values.shape == (4, 4096)


def test_a_bucket_that_is_not_there_is_a_users_mistake(
    bucket: str, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_here(
        capsys, input_path="gs://no-bucket/x", output_path=f"{bucket}/o", model_path=small_model
    )
    assert ran.status == 2
    assert "gs://no-bucket/x does not exist" in ran.err


def test_inspect_reads_and_draws_there(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_whole(f"{bucket}/look/1.dcm", make_dicom())
    arguments = [f"{bucket}/look/1.dcm", f"--output_path={bucket}/look/1.png"]
    assert main.guarded(inspect.main, arguments) == 0
    assert f"{bucket}/look/1.dcm: DICOM" in capsys.readouterr().out
    assert storage.read_bytes(f"{bucket}/look/1.png").startswith(b"\x89PNG")
    assert main.guarded(inspect.main, [f"{bucket}/look/none.dcm"]) == 2
    assert "none.dcm does not exist" in capsys.readouterr().err


def test_embeddings_are_packed_verified_and_read_back_within_a_bucket(bucket: str) -> None:
    from cxr_embed.datasets.pack import FORMATS, Pack, pack
    from cxr_embed.datasets.verify import repair, verify
    from cxr_embed.records import Record, encode_record

    values = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    for number, embedding in enumerate(values):
        record = encode_record(Record(f"gs://in/{number}.dcm", embedding))
        storage.write_whole(f"{bucket}/made/{number}.tfrecord", record)
    for format_ in FORMATS:
        packed = f"{bucket}/packed-{format_}"
        wanted = Pack(f"{bucket}/made", packed, format=format_)
        assert pack(wanted, print, lambda total: lambda done: None).written == 1
        assert pack(wanted, print, lambda total: lambda done: None).kept == 1
        loaded = cxr_embed.load_embeddings(packed)
        assert loaded.image_ids == [f"gs://in/{number}.dcm" for number in range(5)]
        np.testing.assert_array_equal(loaded.values, values)
        assert verify(packed, None, lambda total: lambda done: None).problems == []
    storage.write_whole(f"{bucket}/made/3.tfrecord", b"torn")
    found = verify(f"{bucket}/made", None, lambda total: lambda done: None)
    assert [str(problem).partition(":")[0] for problem in found.problems] == ["torn 3.tfrecord"]
    assert repair(f"{bucket}/made", found) == ["3.tfrecord"]
    assert len(cxr_embed.load_embeddings(f"{bucket}/made")) == 4
