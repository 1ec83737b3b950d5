"""Runs from plan to manifest, with a real model and Beam's in-process runner."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, make_dicom

from cxr_embed.elements import ImageRef, dicom_id_of
from cxr_embed.errors import MachineFault, UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.runs.execute import Result, execute_run
from cxr_embed.runs.fingerprint import CONFIG_NAME
from cxr_embed.runs.folder import read_manifest, runs_in
from cxr_embed.runs.plan import Job, RunPlan, make_plan
from cxr_embed.runs.progress import Progress
from cxr_embed.runs.tables import TABLES, read_table

OPTIONAL = "pylibjpeg-libjpeg"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, 91 * number)))
    (folder / "4.dcm").write_bytes(make_dicom()[:-100])
    (folder / "5.dcm").write_bytes(make_dicom(ViewPosition="LL"))
    return folder


class Runner:
    """Runs jobs into one output."""

    def __init__(self, output: Path, model: Path) -> None:
        self.output, self.model = output, model
        self.lines: list[str] = []
        self.watched: list[tuple[Progress, int]] = []

    def __call__(self, images: Path, *, limit: int | None = None, **settings: Any) -> Result:
        paths = sorted(map(str, images.iterdir()))[:limit]
        refs = [ImageRef(path, dicom_id_of(path), is_listed=True) for path in paths]
        job = Job(refs, str(self.output), ModelSettings(str(self.model)), **settings)
        self.plan = make_plan(job, self.lines.append)
        (result,) = execute_run(RunPlan(job, [self.plan]), self.lines.append, self.watch)
        return result

    @contextlib.contextmanager
    def watch(self, progress: Progress, count: int) -> Iterator[None]:
        self.watched.append((progress, count))
        yield

    def decoders(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.output / CONFIG_NAME).read_text())["decoders"]
        return found


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Runner:
    return Runner(tmp_path / "out", tiny_model)


def test_a_run_leaves_records_tables_and_a_manifest(run: Runner, images: Path) -> None:
    result = run(images, views="frontal")
    assert result.counts == {"found": 6, "embedded": 4, "already_there": 0, "not_attempted": 0}
    assert (result.failed, result.skipped) == ({"truncated": 1}, {"not_frontal": 1})
    assert (result.ended, result.error) == ("done", None)
    assert {path.name for path in run.output.glob("*.tfrecord")} == {
        f"{number}.tfrecord" for number in range(4)
    }
    (files,) = runs_in(str(run.output))
    assert files.folder == result.folder
    assert files.names == {"manifest.json", *(f"{table}.csv" for table in TABLES)}
    rows = list(read_table(files, "embedded"))
    assert [row["path"] for row in rows] == [f"{images}/{number}.dcm" for number in range(4)]
    assert all(row["bytes"] == str((images / "0.dcm").stat().st_size) for row in rows)
    assert all(row["file_state"] and row["floats"] == "64" for row in rows)
    ((progress, count),) = run.watched
    assert count == 6
    assert progress.counts() == {"embedded": 4, "failures": 1, "skipped": 1}


def test_the_manifest_says_what_the_run_was(run: Runner, images: Path) -> None:
    result = run(images, decode_threads=2)
    found = read_manifest(result.folder)
    assert found["run_id"] == Path(result.folder).name
    assert (found["ended"], found["handed_over"]) == ("done", "")
    assert found["counts"] == {**result.counts, "skipped": {}, "failed": {"truncated": 1}}
    assert (
        found["fingerprint"].items() <= json.loads((run.output / CONFIG_NAME).read_text()).items()
    )
    assert (found["device"], found["batch_size"], found["decode_threads"]) == ("cpu", 1, 2)
    assert found["model_path"] == str(run.model)
    assert found["inference"]["images"] == 5
    assert found["bytes_read"] > 0
    seconds = found["seconds"]
    assert 0 < seconds["until_first_image"] <= seconds["wall"]
    assert {"infer", "model_load"} < set(seconds)
    assert found["images_per_second"] == pytest.approx(6 / seconds["wall"], rel=0.01)
    assert "tensorflow" in found["versions"]
    assert set(found["machine"]) == {"system", "machine", "cpus"}  # nothing that names it


def test_the_next_run_has_only_the_failed_ones_to_do(run: Runner, images: Path) -> None:
    run(images)
    result = run(images)
    assert result.counts == {"found": 6, "embedded": 0, "already_there": 5, "not_attempted": 0}
    assert result.failed == {"truncated": 1}
    (images / "4.dcm").write_bytes(make_dicom())
    assert run(images).counts["embedded"] == 1
    result = run(images)
    assert result.counts == {"found": 6, "embedded": 0, "already_there": 6, "not_attempted": 0}
    assert read_manifest(result.folder)["counts"]["already_there"] == 6
    assert len(runs_in(str(run.output))) == 4


def test_other_settings_with_overwrite_leave_no_old_record(run: Runner, images: Path) -> None:
    run(images)
    before = {path.name: path.read_bytes() for path in run.output.glob("*.tfrecord")}
    result = run(images, rendering="dicom", overwrite=True)
    assert result.counts["embedded"] == 5
    after = {path.name: path.read_bytes() for path in run.output.glob("*.tfrecord")}
    assert after.keys() == before.keys()
    config = json.loads((run.output / CONFIG_NAME).read_text())
    assert (config["rendering"], config["embedding_size"]) == ("dicom", 64)


def test_a_decoder_that_came_later_is_never_forgotten(
    run: Runner, images: Path, install: Any
) -> None:
    run(images, limit=1)
    assert run.decoders()[OPTIONAL] == "absent"
    install(OPTIONAL, "1.0")
    run(images, limit=2)
    assert run.decoders()[OPTIONAL] == "1.0"
    install(OPTIONAL, None)
    run(images, limit=3)
    assert run.decoders()[OPTIONAL] == "1.0"
    install(OPTIONAL, "2.0")
    with pytest.raises(UsageError, match=rf"other settings \(decoders\.{OPTIONAL}\)"):
        run(images, limit=4)


def test_too_many_failures_end_a_run(run: Runner, images: Path) -> None:
    for number in range(3):
        (images / f"{number}.dcm").write_bytes(b"rubbish")
    result = run(images, max_failures=2)
    assert result.ended == "max_failures"
    assert sum(result.failed.values()) == 3
    found = read_manifest(result.folder)
    assert (found["ended"], found["counts"]["failed"]) == ("max_failures", result.failed)
    assert len(list(read_table(runs_in(str(run.output))[0], "failures"))) == 3


def test_an_interrupted_run_counts_what_it_did(run: Runner, images: Path) -> None:
    @contextlib.contextmanager
    def interrupted(progress: Progress, _count: int) -> Iterator[None]:
        progress.interrupt()
        yield

    run.watch = interrupted  # type: ignore[method-assign]
    result = run(images)
    assert result.ended == "interrupted"
    embedded = len(list(run.output.glob("*.tfrecord")))
    counts = read_manifest(result.folder)["counts"]
    assert counts["embedded"] == result.counts["embedded"] == embedded
    assert result.counts["not_attempted"] > 0


def test_tables_that_cannot_be_written_are_the_machines_fault(run: Runner, images: Path) -> None:
    @contextlib.contextmanager
    def blocked(_progress: Progress, _count: int) -> Iterator[None]:
        Path(run.plan.folder).mkdir(parents=True, exist_ok=True)
        Path(run.plan.folder, "shards").write_text("a file where the folder has to be")
        yield

    run.watch = blocked  # type: ignore[method-assign]
    result = run(images)
    assert result.ended == "machine_fault"
    assert isinstance(result.error, MachineFault)
    assert "_runs" in str(result.error)
    assert "\n" not in str(result.error)


def test_a_model_of_another_size_than_the_records_is_refused(run: Runner, images: Path) -> None:
    run(images)
    config = json.loads((run.output / CONFIG_NAME).read_text())
    (run.output / CONFIG_NAME).write_text(json.dumps(config | {"embedding_size": 5}))
    with pytest.raises(UsageError, match=r"embeddings of 64 floats, the records in .* have 5"):
        run(images)


def test_a_batch_that_the_model_cannot_take_is_refused(
    run: Runner, images: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    class Locked(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            return {"embedding": tf.reshape(image, [2, 64])}

    module = Locked()
    run.model = tmp_path / "locked"
    tf.saved_model.save(module, str(run.model), signatures={"serving_default": module.__call__})
    with pytest.raises(UsageError, match="--batch_size=3: this model takes at most 2"):
        run(images, batch_size=3)
    assert not run.output.exists()
