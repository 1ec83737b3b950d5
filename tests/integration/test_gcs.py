"""gs:// in and out, with the real client against a stand-in for the service on the loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from buckets import BadLine, emulator, serving, spoken_to, upload
from builders import GRADIENT, make_dicom
from running import run_here

import cxr_embed
from cxr_embed import storage
from cxr_embed.cli import inspect, main, search


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with emulator() as address, spoken_to(address):
        yield "gs://bucket"


@pytest.fixture(scope="module")
def model(bucket: str, small_model: Path) -> str:
    return upload(small_model, f"{bucket}/model")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "cxr-embed" / "models"


def put_images(folder: str, count: int = 4) -> None:
    for number in range(count):
        data = make_dicom(np.roll(GRADIENT, 900 * number))
        storage.write_whole(f"{folder}/s{number % 2}/{number}.dcm", data)


def test_files_are_listed_read_and_written_as_on_disk(bucket: str) -> None:
    for name in ("a/1.dcm", "a/b/2.dcm", "c.txt"):
        storage.write_whole(f"{bucket}/files/{name}", name.encode())
    listed = {entry.path: entry.size for entry in storage.list_files(f"{bucket}/files")}
    assert listed == {"a/1.dcm": 7, "a/b/2.dcm": 9, "c.txt": 5}
    assert storage.read_bytes(f"{bucket}/files/c.txt") == b"c.txt"
    assert list(storage.matches(f"{bucket}/files/a/*.dcm")) == [(f"{bucket}/files/a/1.dcm", "")]
    assert list(storage.matches(f"{bucket}/file*/?.txt")) == [(f"{bucket}/files/c.txt", "")]
    assert len(list(storage.matches(f"{bucket}/files/**/*.dcm"))) == 2
    assert list(storage.matches(f"{bucket}/files/a*")) == [
        (f"{bucket}/files/a/1.dcm", "1.dcm"), (f"{bucket}/files/a/b/2.dcm", "b/2.dcm"),
    ]  # fmt: skip
    storage.remove(f"{bucket}/files/c.txt")
    storage.remove(f"{bucket}/files/c.txt")
    assert not storage.exists(f"{bucket}/files/c.txt")


def test_names_that_no_disk_could_hold_are_read_as_they_are(bucket: str) -> None:
    names = ("a//b.dcm", "./c.dcm", "d e#?é.dcm")
    for name in names:
        storage.write_whole(f"{bucket}/odd/{name}", name.encode())
    assert {entry.path for entry in storage.list_files(f"{bucket}/odd")} == set(names)
    for name in names:
        assert storage.read_bytes(f"{bucket}/odd/{name}") == name.encode()


def test_large_files_are_written_too(bucket: str) -> None:
    data = np.random.default_rng(0).bytes(9 << 20)  # the client cuts what is over 8 MB into pieces
    storage.write_whole(f"{bucket}/large", data)
    assert storage.read_bytes(f"{bucket}/large") == data


def test_what_is_missing_is_a_missing_file(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match="gs://bucket/none"):
        storage.read_bytes(f"{bucket}/none")
    with pytest.raises(FileNotFoundError, match="gs://no-bucket"):
        list(storage.list_files("gs://no-bucket/x"))
    with pytest.raises(FileNotFoundError, match="names no bucket"):
        storage.read_bytes("gs://")
    with pytest.raises(IsADirectoryError):
        storage.read_bytes("gs://bucket/")


def test_the_whole_job_in_a_bucket(
    bucket: str, model: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_images(f"{bucket}/in")
    storage.write_whole(f"{bucket}/in/bad.dcm", b"rubbish")
    flags = {
        "input_path": f"{bucket}/in", "output_path": f"{bucket}/in/out/",
        "model_path": model, "output_layout": "mirror",
    }  # fmt: skip
    ran = run_here(capsys, **flags)
    assert ran.status == 1, ran.err
    assert "embedded       4" in ran.out
    assert "fetching gs://bucket/model" in ran.err
    names = {entry.path for entry in storage.list_files(f"{bucket}/in/out")}
    assert {"s0/0.tfrecord", "s1/3.tfrecord", "_embedding_config.json"} < names
    assert sum(name.startswith("_runs/") for name in names) == 4
    fetched = [path for path in cache.iterdir() if path.is_dir()]
    assert len(fetched) == 1
    again = run_here(capsys, **flags)
    assert "already there  4" in again.out
    assert "fetching" not in again.err
    embeddings = cxr_embed.load_embeddings(f"{bucket}/in/out")
    assert embeddings.ids == ["0", "2", "1", "3"]
    assert embeddings.image_ids[0] == f"{bucket}/in/s0/0.dcm"
    assert embeddings.values.shape == (4, 4096)


def test_a_model_in_a_bucket_is_the_one_on_disk(
    bucket: str, model: str, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_images(f"{bucket}/same")
    flags = {"input_path": f"{bucket}/same", "output_path": f"{bucket}/same-out"}
    assert run_here(capsys, model_path=model, **flags).status == 0
    ran = run_here(capsys, model_path=small_model, **flags)
    assert ran.status == 0
    assert "already there  4" in ran.out


def test_a_search_embeds_an_image_with_the_model_in_the_bucket(
    bucket: str, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    put_images(f"{bucket}/searched")
    output = f"{bucket}/searched-out"
    flags = {"input_path": f"{bucket}/searched", "output_path": output, "model_path": model}
    assert run_here(capsys, **flags).status == 0
    query = tmp_path / "query.dcm"
    query.write_bytes(storage.read_bytes(f"{bucket}/searched/s0/0.dcm"))
    arguments = [f"--input_path={output}", f"--query={query}", "--k=1"]
    assert main.guarded(search.main, arguments) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[1:3] == ["1.000000", "0"]


def test_a_list_and_a_model_config_in_a_bucket(
    bucket: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put_images(f"{bucket}/listed")
    storage.write_whole(f"{bucket}/list.txt", f"{bucket}/listed/s1/3.dcm\n".encode())
    storage.write_whole(f"{bucket}/model.toml", b"[output]\nembedding_size = 4096\n")
    flags = {
        "input_list": f"{bucket}/list.txt", "output_path": f"{bucket}/listed-out",
        "model_path": model, "model_config": f"{bucket}/model.toml",
    }  # fmt: skip
    assert run_here(capsys, **flags).status == 0
    assert cxr_embed.load_embeddings(f"{bucket}/listed-out").ids == ["3"]
    del flags["input_list"]
    one = {"input_path": f"{bucket}/listed/s0/2.dcm", "output_path": f"{bucket}/one-out"}
    assert run_here(capsys, **flags | one).status == 0
    assert cxr_embed.load_embeddings(f"{bucket}/one-out/2.tfrecord").ids == ["2"]
    flags["input_list"] = f"{bucket}/list.txt"
    for name in ("input_list", "model_config"):
        ran = run_here(capsys, **flags | {name: f"{bucket}/nowhere"})
        assert ran.status == 2
        assert f"--{name}" in ran.err
        assert "gs://bucket/nowhere does not exist" in ran.err


@pytest.mark.parametrize("wrong", ["input_path", "output_path", "model_path"])
def test_a_bucket_that_is_not_there_is_a_users_mistake(
    bucket: str, model: str, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    put_images(f"{bucket}/fine", 1)
    flags = {
        "input_path": f"{bucket}/fine", "output_path": f"{bucket}/o", "model_path": model,
        wrong: "gs://no-bucket/x",
    }  # fmt: skip
    ran = run_here(capsys, **flags)
    assert ran.status == 2
    assert f"--{wrong}" in ran.err
    assert "gs://no-bucket/x does not exist" in ran.err
    assert "Traceback" not in ran.err
    assert list(storage.list_files(f"{bucket}/o")) == []


def test_an_empty_place_is_a_users_mistake(
    bucket: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_here(capsys, input_path=f"{bucket}/void", output_path=f"{bucket}/o", model_path=model)
    assert ran.status == 2
    assert "no image found" in ran.err
    with pytest.raises(cxr_embed.errors.UsageError, match="no-bucket"):
        cxr_embed.load_embeddings("gs://no-bucket/x")


def test_inspect_reads_and_draws_there(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_whole(f"{bucket}/look/1.dcm", make_dicom())
    arguments = [f"{bucket}/look/1.dcm", f"--output_path={bucket}/look/1.png"]
    assert main.guarded(inspect.main, arguments) == 0
    assert f"{bucket}/look/1.dcm: DICOM" in capsys.readouterr().out
    assert storage.read_bytes(f"{bucket}/look/1.png").startswith(b"\x89PNG")
    assert main.guarded(inspect.main, [f"{bucket}/look/none.dcm"]) == 2
    assert "none.dcm does not exist" in capsys.readouterr().err


def test_a_limit_is_the_first_in_sorted_order(
    bucket: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put_images(f"{bucket}/many")
    storage.write_whole(f"{bucket}/many/s0/00-notes.txt", b"notes")
    ran = run_here(
        capsys, input_path=f"{bucket}/many", output_path=f"{bucket}/few", model_path=model, limit=3
    )
    assert ran.status == 0
    assert cxr_embed.load_embeddings(f"{bucket}/few").ids == ["0", "1", "2"]


def test_every_request_names_the_project_that_pays(
    bucket: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put_images(f"{bucket}/paid")
    line = BadLine(os.environ["STORAGE_EMULATOR_HOST"], share=0)
    with line.open() as address, spoken_to(address):
        ran = run_here(
            capsys, input_path=f"{bucket}/paid", output_path=f"{bucket}/paid-out",
            model_path=model, gcs_billing_project="who-pays",
        )  # fmt: skip
        assert ran.status == 0, ran.err
        assert len(line.paths) > 10
        assert [path for path in line.paths if "userProject=who-pays" not in path] == []
        cxr_embed.load_embeddings(f"{bucket}/paid-out")  # as a library: still configured
        assert "userProject=who-pays" in line.paths[-1]
    line = BadLine(os.environ["STORAGE_EMULATOR_HOST"], share=0)
    with line.open() as address, spoken_to(address):
        cxr_embed.load_embeddings(f"{bucket}/paid-out")
    assert line.paths
    assert not any("userProject" in path for path in line.paths)


def test_a_bucket_that_wants_to_be_paid_says_how(bucket: str) -> None:
    class RequesterPays(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            message = "Bucket is a requester pays bucket but no user project provided."
            errors = [{"message": message, "domain": "global", "reason": "required"}]
            body = json.dumps({"error": {"errors": errors, "code": 400, "message": message}})
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    with serving(RequesterPays) as address, spoken_to(address):
        with pytest.raises(OSError, match=r"gs://b/x: 400 .*--gcs_billing_project"):
            storage.read_bytes("gs://b/x")
        with pytest.raises(OSError, match=r"gs://b: 400 .*--gcs_billing_project"):
            list(storage.list_files("gs://b"))


def test_without_credentials_it_says_how_to_get_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    ran = run_here(capsys, input_path="gs://b/x", output_path=tmp_path, model_path=tmp_path)
    assert ran.status == 2
    assert "gs://b/x: no Google Cloud credentials here" in ran.err


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
