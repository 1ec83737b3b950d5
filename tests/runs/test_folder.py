"""The folder that each run leaves in its output."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import emulator, spoken_to

from cxr_embed import storage
from cxr_embed.runs import folder
from cxr_embed.runs.folder import RunFiles, read_manifest, runs_in, write_manifest


def test_names_of_runs_sort_by_time() -> None:
    names = []
    for _ in range(20):
        names.append(folder.new_run_id())
        time.sleep(0.002)
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{6}", name) for name in names)


def test_runs_are_found_oldest_first_with_their_files(tmp_path: Path) -> None:
    for name in ("b/embedded.csv", "b/shards/2.csv", "b/shards/1.csv", "b/shards/.x.tmp", "a/m"):
        (tmp_path / "_runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "_runs" / name).touch()
    (tmp_path / "_runs/notes.txt").touch()
    (tmp_path / "1.tfrecord").touch()
    first, second = runs_in(str(tmp_path))
    assert (first.run_id, second.run_id) == ("a", "b")
    assert first.shards == []
    assert second.shards == [f"{tmp_path}/_runs/b/shards/{n}.csv" for n in (1, 2)]
    assert second.names == {"embedded.csv", "shards/1.csv", "shards/2.csv", "shards/.x.tmp"}


def test_a_listing_of_the_output_gives_the_same(tmp_path: Path) -> None:
    for name in ("_runs/a/shards/1.csv", "_runs/a/embedded.csv", "p/_runs/c/x", "1.tfrecord"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert runs_in(str(tmp_path), storage.list_paths(str(tmp_path))) == runs_in(str(tmp_path))
    assert runs_in(str(tmp_path / "none")) == []


def test_a_manifest_comes_back_and_a_damaged_one_is_empty(tmp_path: Path) -> None:
    run = str(tmp_path / "_runs/a")
    odd = b"in/\xff".decode("utf-8", "surrogateescape")
    write_manifest(run, {"command": [odd, "é"]})
    write_manifest(run, {"command": [odd, "é", "twice"]})
    assert read_manifest(run) == {"command": [odd, "é", "twice"]}
    for content in (b"", b"[", b"3", b"\xff"):
        (tmp_path / "_runs/a/manifest.json").write_bytes(content)
        assert read_manifest(run) == {}
    assert read_manifest(str(tmp_path / "none")) == {}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with emulator() as address, spoken_to(address):
        yield "gs://bucket"


def test_in_a_bucket(bucket: str) -> None:
    output = f"{bucket}/out"
    run = folder.run_folder(output, "a")
    write_manifest(run, {"n": 1})
    write_manifest(run, {"n": 2})
    storage.write_whole(f"{run}/shards/1.csv", b"")
    assert runs_in(output) == [RunFiles(run, {"manifest.json", "shards/1.csv"})]
    assert runs_in(output)[0].shards == [f"{run}/shards/1.csv"]
    assert read_manifest(run) == {"n": 2}
