"""The main job and the verbs with everything in a bucket that is not Google's."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_files import KINDS, write_archive
from buckets import BadLine, contents, upload
from builders import GRADIENT, make_dicom
from running import command, run_here
from stores import SECRET, STORES, Store

import cxr_embed
from cxr_embed import records, storage
from cxr_embed.cli import main as cli_main
from cxr_embed.elements import RECORD_SUFFIX

COUNT = 60


@pytest.fixture(scope="module", params=["s3", pytest.param("az", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[Store]:
    """A service with 60 images in `in`, a list of half of them, and a model."""
    with STORES[request.param]() as running, running.spoken_to(running.address):
        for number in range(COUNT):
            data = make_dicom(np.roll(GRADIENT, 37 * number))
            path = f"{running.folder}/in/s{number % 2}/{number:02d}.dcm"
            storage.write_whole(path, data)
        half = [f"{running.folder}/in/s0/{number:02d}.dcm\n" for number in range(0, COUNT, 2)]
        storage.write_whole(f"{running.folder}/list.txt", "".join(half).encode())
        upload(tiny_model, f"{running.folder}/model")
        yield running


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def output(store: Store) -> str:
    """An output of the main job, written over a bad line."""
    output = f"{store.folder}/out"
    flags = [
        f"--input_path={store.folder}/in/**/*.dcm", f"--output_path={output}/",
        f"--model_path={store.folder}/model",
    ]  # fmt: skip
    line = BadLine(store.address, share=0.1)
    with line.open() as address, store.spoken_to(address):
        assert cli_main.main(["run", *flags]) == 0
    assert sum(line.happened.values()) > 5
    return output


def test_a_bad_line_loses_and_doubles_nothing(
    store: Store, output: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {"input_path": f"{store.folder}/in", "output_path": tmp_path, "model_path": tiny_model}
    assert run_here(capsys, **here).status == 0
    found = contents(output)
    written = {name: data for name, data in found.items() if name.endswith(RECORD_SUFFIX)}
    assert written == {path.name: path.read_bytes() for path in tmp_path.glob(f"*{RECORD_SUFFIX}")}
    assert len(written) == COUNT
    assert len(found) == COUNT + 1 + 4  # the records, the config, three tables and a manifest
    (manifest,) = [json.loads(data) for name, data in found.items() if "manifest" in name]
    assert f"{store.folder}/model" in json.dumps(manifest)
    first = records.decode_record(written["00.tfrecord"])
    assert first.image_id == f"{store.folder}/in/s0/00.dcm"
    assert not any(SECRET.encode() in data for data in found.values())


def test_what_is_there_is_not_computed_again(store: Store, output: str, do: Any) -> None:
    flags = (f"--output_path={output}", f"--model_path={store.folder}/model")
    line = BadLine(store.address, share=0)
    with line.open() as address, store.spoken_to(address):
        ran = do("run", f"--input_list={store.folder}/list.txt", *flags)
    assert ran.status == 0, ran.err
    assert f"already there  {COUNT // 2}" in ran.out
    assert not any(".dcm" in path or ".tfrecord" in path for path in line.paths)
    ran = do("run", f"--input_path={store.folder}/in/s0", *flags, "--overwrite")
    assert ran.status == 0, ran.err
    assert f"embedded       {COUNT // 2}" in ran.out
    storage.write_whole(f"{store.folder}/moved/00.dcm", make_dicom(GRADIENT))
    ran = do("run", f"--input_path={store.folder}/moved", *flags)
    assert ran.status == 2
    assert "--moved_inputs" in ran.err
    assert do("run", f"--input_path={store.folder}/moved", *flags, "--moved_inputs").status == 0


def test_an_outage_ends_the_run_and_the_next_one_goes_on(store: Store, do: Any) -> None:
    class Outage(BadLine):
        def decide(self, method: str, path: str) -> str:
            if sum(".dcm" in path for path in self.paths) > COUNT // 3:
                self.share = 1
            return super().decide(method, path)

    output = f"{store.folder}/outage"
    flags = (f"--input_path={store.folder}/in", f"--output_path={output}", "--decode_threads=2")
    flags += (f"--model_path={store.folder}/model",)
    line = Outage(store.address, share=0, faults=("unavailable", "hung_up"))
    with line.open() as address, store.spoken_to(address, retry_seconds=0.3):
        ran = do("run", *flags)
    assert ran.status == 3
    assert f"{store.scheme}://bucket/" in ran.err
    assert "gave up after 0.3 s" in ran.err
    assert SECRET not in ran.err + ran.out
    ran = do("run", *flags)
    assert ran.status == 0, ran.err
    assert "failed         0\n" in ran.out
    assert sum(name.endswith(RECORD_SUFFIX) for name in contents(output)) == COUNT


def test_archives_are_read_where_they_are(
    store: Store, output: str, do: Any, tmp_path: Path
) -> None:
    for kind in KINDS:
        files = {
            f"s{number % 2}/{kind}-{number:02d}.dcm": make_dicom(np.roll(GRADIENT, 37 * number))
            for number in range(3)
        }
        archive = write_archive(tmp_path / f"a.{kind}", files)
        storage.write_whole(f"{store.folder}/archives/{archive.name}", archive.read_bytes())
    flags = (
        f"--input_path={store.folder}/archives", "--search_archives",
        f"--output_path={store.folder}/unpacked", f"--model_path={store.folder}/model",
    )  # fmt: skip
    line = BadLine(store.address, share=0.05)
    with line.open() as address, store.spoken_to(address):
        ran = do("run", *flags)
    assert ran.status == 0, ran.err
    found = cxr_embed.load_embeddings(f"{store.folder}/unpacked")
    expected = cxr_embed.load_embeddings(output)
    assert len(found.ids) == 3 * len(KINDS)
    for row, name in enumerate(found.ids):
        same = expected.values[expected.ids.index(name[-2:])]
        np.testing.assert_array_equal(found.values[row], same)
    line = BadLine(store.address, share=0)
    with line.open() as address, store.spoken_to(address):
        assert do("run", *flags).status == 0
    opened = [path for path in line.paths if "archives/a." in path]
    assert len(opened) == len(KINDS), opened  # only their state was asked for


def test_the_verbs_read_and_write_there(store: Store, output: str, do: Any) -> None:
    folder = store.folder
    assert len(cxr_embed.load_embeddings(output).ids) == COUNT
    ran = do("pack", f"--input_path={output}", f"--output_path={folder}/packed")
    assert ran.status == 0, ran.err
    for place in (
        (f"--input_path={output}", f"--inputs={folder}/in"),
        (f"--input_path={folder}/packed",),
    ):
        ran = do("verify", *place)
        assert ran.status == 0, ran.out + ran.err
    ran = do(
        "search", f"--input_path={output}", f"--query={folder}/in/s0/02.dcm", "--k=3",
        f"--html={folder}/page.html", f"--model_path={folder}/model",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    ran = do("report", f"--input_path={output}", f"--output_path={folder}/report.html", "--map=pca")
    assert ran.status == 0, ran.err
    ran = do("inspect", f"--input_path={folder}/in/s0/02.dcm", f"--output_path={folder}/drawn.png")
    assert ran.status == 0, ran.err
    assert storage.exists(f"{folder}/page.html")
    assert b"<html" in storage.read_bytes(f"{folder}/report.html")[:200].lower()
    assert storage.read_start(f"{folder}/drawn.png").startswith(b"\x89PNG")


def test_an_outage_is_no_damage_that_verify_repairs(store: Store, output: str, do: Any) -> None:
    class Outage(BadLine):
        def decide(self, method: str, path: str) -> str:
            if (method == "GET" and "packed" in path and ".parquet" in path) or "/07.tfrec" in path:
                self.share = 1.0
            return super().decide(method, path)

    for folder in (f"{store.folder}/packed", output):
        before = contents(folder)
        line = Outage(store.address, share=0, faults=("unavailable",))
        with line.open() as address, store.spoken_to(address, retry_seconds=0.3):
            ran = do("verify", f"--input_path={folder}", "--repair")
        assert ran.status == 3
        assert ran.err.startswith(f"cxr-embed: {folder}/")
        assert "gave up after 0.3 s" in ran.err
        assert ran.err.count("\n") == 1
        assert contents(folder) == before


def test_heads_are_trained_and_applied_there(store: Store, output: str, do: Any) -> None:
    folder = store.folder
    splits = ("train", "tune", "test")
    rows = [f"{number:02d},{splits[number % 3]},{number // 3 % 2}" for number in range(COUNT)]
    labels = "\n".join(["image_id,split,EFFUSION", *rows]).encode()
    storage.write_whole(f"{folder}/labels.csv", labels)
    ran = do(
        "train", f"--data_dir={output}", f"--labels_csv={folder}/labels.csv", "--num_epochs=2",
        "--hidden_layer_sizes=4", "--head_name=EFFUSION", f"--output_dir={folder}/head",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    ran = do(
        "predict", f"--head={folder}/head", f"--input_path={output}",
        f"--output_path={folder}/predicted.csv",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert len(storage.read_bytes(f"{folder}/predicted.csv").splitlines()) == COUNT + 1
    ran = do(
        "evaluate", f"--predictions={folder}/predicted.csv", f"--labels_csv={folder}/labels.csv",
        f"--output_path={folder}/measured", "--num_bootstrap=0",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert any(name.endswith(".csv") for name in contents(f"{folder}/measured"))


def test_a_killed_run_is_taken_up_again(
    store: Store, output: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = f"{store.folder}/killed"
    flags = {
        "input_path": f"{store.folder}/in", "output_path": killed,
        "model_path": f"{store.folder}/model",
    }  # fmt: skip
    line = BadLine(store.address, share=1, faults=("slow",))
    with (
        line.open() as address,
        store.spoken_to(address),
        subprocess.Popen(
            command(**flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
    ):
        deadline = time.monotonic() + 300
        while (
            sum(1 for path in line.paths if path.endswith(RECORD_SUFFIX)) < 10
            and process.poll() is None
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def written(folder: str) -> dict[str, bytes]:
        return {k: v for k, v in contents(folder).items() if k.endswith(RECORD_SUFFIX)}

    found, expected = written(killed), written(output)
    assert 0 < len(found) < COUNT
    ran = run_here(capsys, **flags)
    assert ran.status == 0, ran.err
    # What the process had sent when it was killed may have arrived later.
    (kept,) = re.findall(r"already there  (\d+)", ran.out)
    assert len(found) <= int(kept) < COUNT
    assert written(killed) == expected


def test_what_cannot_be_used_is_one_line_before_the_run(
    store: Store, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"input_path": f"{store.folder}/in", "output_path": tmp_path, "model_path": tiny_model}
    missing = f"{store.scheme}://no-bucket/x"
    for flag in good:
        ran = run_here(capsys, **{**good, flag: missing})
        assert ran.status == 2
        assert missing in ran.err
        assert "Traceback" not in ran.err
    with store.spoken_to("http://127.0.0.1:9", retry_seconds=1):
        ran = run_here(capsys, **good)
    assert ran.status == 2
    assert f"{store.folder}/in: gave up after 1 s" in ran.err
    assert list(tmp_path.iterdir()) == []
    assert SECRET not in ran.err + ran.out
