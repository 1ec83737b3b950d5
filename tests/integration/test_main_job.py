"""The main job, whole, with a real EfficientNet of the exporter's and real runs of Beam."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from builders import GRADIENT, as_bytes, make_dicom, make_jpeg2000
from PIL import Image
from running import Ran, all_files, last_run, manifest, records, run_apart, run_here, table

import cxr_embed
from cxr_embed.elements import CONFIG_NAME
from cxr_embed.records import Record, decode_record, encode_record


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve radiographs, all different, in two folders."""
    folder = tmp_path / "in"
    for number in range(12):
        path = folder / f"s{number % 2}" / f"image{number:02d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_dicom(np.roll(GRADIENT, 37 * number)))
    return folder


@pytest.fixture
def job(images: Path, tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the job on `images`; flags may be replaced."""

    def start(*extra: str, **flags: Any) -> Ran:
        defaults = {
            "input_path": images,
            "output_path": tmp_path / "out",
            "model_path": small_model,
        }
        return run_here(capsys, *extra, **(defaults | flags))

    return start


class TestRecords:
    def test_one_record_an_image_that_tensorflow_reads(self, job: Any, tmp_path: Path) -> None:
        import tensorflow as tf

        assert job().status == 0
        names = sorted(str(p) for p in (tmp_path / "out").glob("*.tfrecord"))
        spec = {
            "image/id": tf.io.FixedLenFeature([], tf.string),
            "embedding": tf.io.FixedLenFeature([4096], tf.float32),
        }
        parsed = [tf.io.parse_single_example(r, spec) for r in tf.data.TFRecordDataset(names)]
        assert len(parsed) == 12
        ids = [example["image/id"].numpy().decode() for example in parsed]
        assert ids[3] == str(tmp_path / "in/s1/image03.dcm")
        values = np.stack([example["embedding"].numpy() for example in parsed])
        assert np.isfinite(values).all()
        assert len(np.unique(values, axis=0)) == 12

    def test_the_library_reads_them_back(self, job: Any, tmp_path: Path) -> None:
        job()
        embeddings = cxr_embed.load_embeddings(str(tmp_path / "out"))
        assert embeddings.ids == [f"image{n:02d}" for n in range(12)]
        assert embeddings.values.shape == (12, 4096)

    def test_two_runs_give_the_same_bytes(self, job: Any, tmp_path: Path) -> None:
        job()
        job(output_path=tmp_path / "again")
        assert records(tmp_path / "out") == records(tmp_path / "again")

    def test_mirror_keeps_the_folders(self, job: Any, tmp_path: Path) -> None:
        assert job(output_layout="mirror", limit=3).status == 0
        assert sorted(records(tmp_path / "out")) == [
            "s0/image00.tfrecord", "s0/image02.tfrecord", "s0/image04.tfrecord",
        ]  # fmt: skip

    def test_pictures_and_lists_are_inputs_too(self, job: Any, tmp_path: Path) -> None:
        Image.fromarray((GRADIENT % 256).astype(np.uint8)).save(tmp_path / "a.png")
        Image.fromarray((GRADIENT % 256).astype(np.uint8)).save(tmp_path / "b.JPG")
        (tmp_path / "list").write_text(f"{tmp_path}/a.png\n{tmp_path}/b.JPG\n{tmp_path}/gone.dcm\n")
        ran = job(input_path=None, input_list=tmp_path / "list")
        assert ran.status == 1
        assert sorted(records(tmp_path / "out")) == ["a.tfrecord", "b.tfrecord"]
        assert [r["reason"] for r in table(tmp_path / "out", "failures")] == ["read_error"]

    def test_both_renderings_and_other_batch_sizes(self, job: Any, tmp_path: Path) -> None:
        job(limit=2)
        assert job(limit=2, rendering="dicom", output_path=tmp_path / "dicom").status == 0
        assert job(batch_size=5, output_path=tmp_path / "batched").status == 0
        assert records(tmp_path / "dicom").keys() == records(tmp_path / "out").keys()
        one = cxr_embed.load_embeddings(str(tmp_path / "out")).values
        batched = cxr_embed.load_embeddings(str(tmp_path / "batched")).values[[0, 2]]
        np.testing.assert_allclose(one, batched, rtol=0, atol=1e-4 * np.abs(one).max())


class TestOutcomes:
    def test_a_bad_file_costs_itself_only(self, job: Any, images: Path, tmp_path: Path) -> None:
        (images / "broken.dcm").write_bytes(make_dicom()[:-500])
        (images / "colour.dcm").write_bytes(make_dicom(PhotometricInterpretation="RGB"))
        (images / "report.txt").write_text("no image")
        ran = job(batch_size=4)
        assert ran.status == 1
        assert len(records(tmp_path / "out")) == 12
        failures = table(tmp_path / "out", "failures")
        assert [(r["dicom_id"], r["stage"], r["reason"]) for r in failures] == [
            ("broken", "decode", "truncated"),
            ("colour", "decode", "not_grayscale"),
        ]
        skipped = table(tmp_path / "out", "skipped")
        assert [(r["dicom_id"], r["reason"]) for r in skipped] == [("report.txt", "not_an_image")]
        assert "1 truncated" in ran.out
        assert str(last_run(tmp_path / "out")) in ran.out

    def test_skip_errors_ends_well(self, job: Any, images: Path) -> None:
        (images / "broken.dcm").write_bytes(b"rubbish")
        assert job(skip_errors=True).status == 0

    def test_frontal_views_only(self, job: Any, images: Path, tmp_path: Path) -> None:
        (images / "lateral.dcm").write_bytes(make_dicom(ViewPosition="LL"))
        (images / "unknown.dcm").write_bytes(make_dicom(ViewPosition=None))
        assert job(views="frontal").status == 0
        assert [r["dicom_id"] for r in table(tmp_path / "out", "skipped")] == ["lateral"]
        assert "unknown.tfrecord" in records(tmp_path / "out")

    def test_max_failures_stops_early(self, job: Any, images: Path, tmp_path: Path) -> None:
        for number in range(200):
            (images / f"bad{number}.dcm").write_bytes(b"rubbish")
        ran = job("--direct_num_workers=1", max_failures=3, skip_errors=True)
        assert ran.status == 1
        assert "stopped early" in ran.err
        counts = manifest(tmp_path / "out")["counts"]
        assert counts["failed"]["not_an_image"] < 20
        assert counts["not_attempted"] > 150

    def test_a_name_that_is_not_text_is_a_name(
        self, job: Any, images: Path, tmp_path: Path
    ) -> None:
        name = b"r\xe9.dcm".decode("utf-8", "surrogateescape")
        (images / name).write_bytes(make_dicom())
        (images / f"bad{name}").write_bytes(b"rubbish")
        assert job(skip_errors=True).status == 0
        written = (last_run(tmp_path / "out") / "embedded.csv").read_bytes()
        assert b"/r\xe9.dcm," in written
        assert manifest(tmp_path / "out")["counts"]["failed"] == {"not_an_image": 1}

    def test_the_manifest_says_what_was_chosen(self, job: Any, tmp_path: Path) -> None:
        job()
        written = manifest(tmp_path / "out")
        cores = len(os.sched_getaffinity(0))
        assert written["batch_size"] == 1
        assert written["decode_threads"] == cores
        job(output_path=tmp_path / "said", decode_threads=2, batch_size=6)
        written = manifest(tmp_path / "said")
        assert (written["batch_size"], written["decode_threads"]) == (6, 2)
        assert written["counts"]["embedded"] == 12

    def test_the_manifest_accounts_for_every_image(
        self, job: Any, images: Path, tmp_path: Path
    ) -> None:
        (images / "broken.dcm").write_bytes(b"rubbish")
        job()
        written = manifest(tmp_path / "out")
        assert written["counts"] == {
            "found": 13, "embedded": 12, "already_there": 0, "not_attempted": 0,
            "skipped": {}, "failed": {"not_an_image": 1},
        }  # fmt: skip
        assert written["device"] == "cpu"
        assert written["fingerprint"]["rendering"] == "cxr_foundation"
        assert {"read", "decode_and_render", "fit", "infer", "write"} < set(written["seconds"])
        assert written["inference"]["images"] == 12
        batches = written["inference"]["inference_request_batch_size"]
        assert batches == {"count": 12, "sum": 12, "min": 1, "max": 1}
        assert written["inference"]["inference_batch_latency_micro_secs"]["sum"] > 0
        embedded = table(tmp_path / "out", "embedded")
        assert len(embedded) == 12
        assert embedded[0]["rows"] == str(GRADIENT.shape[0])

    def test_a_model_that_gives_nan_fails_the_image(self, job: Any, tmp_path: Path) -> None:
        import tensorflow as tf

        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)])
            def __call__(self, image: Any) -> Any:
                corner = image[:, :1, :1, :]
                return tf.reshape(image, [-1, 64]) / tf.cast(corner[:, 0, 0] < 0.3, tf.float32)

        model = Model()
        tf.saved_model.save(
            model, str(tmp_path / "m"), signatures={"serving_default": model.__call__}
        )
        ran = job(model_path=tmp_path / "m", batch_size=12)
        assert ran.status == 1
        failures = table(tmp_path / "out", "failures")
        assert {row["reason"] for row in failures} == {"not_finite"}
        assert 0 < len(failures) < 12
        assert len(records(tmp_path / "out")) == 12 - len(failures)


class TestResume:
    def test_what_stands_is_not_computed_again(self, job: Any, tmp_path: Path) -> None:
        job(limit=5)
        stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.tfrecord")}
        ran = job()
        assert "already there  5" in ran.out
        assert "embedded       7" in ran.out
        assert {p: p.stat().st_mtime_ns for p in stamps} == stamps

    def test_all_done_needs_no_model(self, job: Any, tmp_path: Path) -> None:
        job()
        ran = job()
        assert ran.status == 0
        assert "already there  12" in ran.out
        assert "loaded in" not in ran.err
        assert manifest(tmp_path / "out")["counts"]["already_there"] == 12
        assert table(tmp_path / "out", "embedded") == []

    def test_what_stands_unchanged_is_not_even_opened(self, job: Any, tmp_path: Path) -> None:
        job(limit=7)
        opened: list[str] = []
        is_on = [True]

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and is_on[0]:
                opened.append(str(arguments[0]))

        sys.addaudithook(note)
        job(limit=7)
        is_on[0] = False
        assert any(name.endswith("embedded.csv") for name in opened)
        assert not [name for name in opened if name.endswith((".dcm", ".tfrecord"))]

    def test_records_of_a_killed_run_are_read_once(self, job: Any, tmp_path: Path) -> None:
        job()
        out = tmp_path / "out"
        shutil.rmtree(out / "_runs")  # a killed run leaves records and nothing that speaks of them
        assert job().status == 0
        assert (last_run(out) / "checked.csv").read_text().count("\n") == 12
        assert job().status == 0
        assert not (last_run(out) / "checked.csv").exists()

    def test_a_byte_that_changed_in_place_is_mended(self, job: Any, tmp_path: Path) -> None:
        job()
        out = tmp_path / "out"
        whole = records(out)
        torn, status = out / "image04.tfrecord", (out / "image04.tfrecord").stat()
        with torn.open("r+b") as file:
            file.seek(900)
            file.write(bytes(40))
        os.utime(torn, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert "1 damaged records" in job().err
        assert records(out) == whole

    def test_torn_records_and_leftovers_are_mended(self, job: Any, tmp_path: Path) -> None:
        job()
        out = tmp_path / "out"
        whole = records(out)
        torn = out / "image03.tfrecord"
        torn.write_bytes(torn.read_bytes()[:900])
        (out / "image05.tfrecord").write_bytes(b"")
        (out / ".cxr-embed-0123.tmp").write_bytes(b"left by a killed run")
        ran = job()
        assert ran.status == 0
        assert "2 damaged records" in ran.err
        assert records(out) == whole
        assert all_files(out) == {*whole, CONFIG_NAME}

    def test_a_failed_image_is_tried_again(self, job: Any, images: Path, tmp_path: Path) -> None:
        (images / "late.dcm").write_bytes(b"rubbish")
        assert job().status == 1
        (images / "late.dcm").write_bytes(make_dicom())
        assert job().status == 0
        assert "late.tfrecord" in records(tmp_path / "out")

    def test_overwrite_computes_all_again(self, job: Any, tmp_path: Path) -> None:
        job()
        out = tmp_path / "out"
        before = records(out)
        false = Record(str(tmp_path / "in/s0/image00.dcm"), np.zeros(4096, np.float32))
        (out / "image00.tfrecord").write_bytes(encode_record(false))
        assert "embedded       12" in job(overwrite=True).out
        assert records(out) == before

    def test_other_settings_are_refused_unless_overwritten(self, job: Any, tmp_path: Path) -> None:
        job()
        out = tmp_path / "out"
        before = records(out)
        ran = job(rendering="dicom")
        assert ran.status == 2
        assert "(rendering)" in ran.err
        assert records(out) == before
        assert job(rendering="dicom", overwrite=True).status == 0
        assert job(rendering="dicom").status == 0
        assert job().status == 2

    def test_a_lower_resolution_is_another_setting(
        self, job: Any, images: Path, tmp_path: Path
    ) -> None:
        for number, path in enumerate(sorted(images.rglob("*.dcm"))):
            pixels = np.roll(cv2.resize(GRADIENT, (200, 240)), 10 * number, axis=0)
            path.write_bytes(as_bytes(make_jpeg2000(pixels, 16)))
        job()
        whole = records(tmp_path / "out")
        ran = job(decode_scale="auto")
        assert ran.status == 2
        assert "(decode_scale)" in ran.err
        assert job(decode_scale="auto", output_path=tmp_path / "less").status == 0
        less = records(tmp_path / "less")
        assert less.keys() == whole.keys()
        for name, data in less.items():
            before, after = (decode_record(each).embedding for each in (whole[name], data))
            assert not np.array_equal(before, after)
            np.testing.assert_allclose(after, before, atol=0.1 * np.abs(before).max())
        assert manifest(tmp_path / "less")["fingerprint"]["decode_scale"] == "auto"

    def test_a_lower_resolution_needs_a_size_to_cover(self, job: Any, tmp_path: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        module.embed = tf.function(
            lambda image: {"embedding": tf.reduce_mean(image, [1, 2])},
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="image")],
        )
        signatures = {"serving_default": module.embed}
        tf.saved_model.save(module, str(tmp_path / "any"), signatures=signatures)
        ran = job(decode_scale="auto", model_path=tmp_path / "any")
        assert ran.status == 2
        assert "--decode_scale=auto needs a model whose images are resized" in ran.err
        assert not (tmp_path / "out").exists()

    def test_another_models_output_is_refused(
        self, job: Any, tmp_path: Path, small_model: Path
    ) -> None:
        job(limit=1)
        other = tmp_path / "model"
        shutil.copytree(small_model, other)
        index = next((other / "variables").glob("*.data-*"))
        index.write_bytes(index.read_bytes()[:-4] + b"\0\0\0\1")
        ran = job(model_path=other)
        assert ran.status == 2
        assert "(model_sha256)" in ran.err

    def test_another_images_record_is_refused(self, job: Any, images: Path, tmp_path: Path) -> None:
        job()
        other = tmp_path / "other"
        other.mkdir()
        (other / "image00.dcm").write_bytes(make_dicom())
        before = records(tmp_path / "out")
        for flags in ({}, {"overwrite": True}):
            ran = job(input_path=other, **flags)
            assert ran.status == 2
            assert f"is the record of {images}/s0/image00.dcm, not of {other}/" in ran.err
            assert "--output_layout=mirror" in ran.err
            assert "--moved_inputs" in ran.err
        assert records(tmp_path / "out") == before

    def test_records_of_moved_inputs_are_kept_when_asked(
        self, job: Any, images: Path, tmp_path: Path
    ) -> None:
        job()
        moved = tmp_path / "moved"
        images.rename(moved)
        assert job(input_path=moved).status == 2
        ran = job(input_path=moved, moved_inputs=True)
        assert ran.status == 0
        assert "already there  12" in ran.out
        assert "warning: 12 records keep an image/id that is not the path given now" in ran.err
        kept = decode_record((tmp_path / "out/image00.tfrecord").read_bytes())
        assert kept.image_id == str(images / "s0/image00.dcm")

    def test_an_absolute_path_names_the_same_image_as_a_relative_one(
        self, job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert job(input_path="in").status == 0
        ran = job()
        assert (ran.status, "already there  12" in ran.out) == (0, True)


class TestApart:
    """The program in a process of its own."""

    def test_from_any_folder(self, images: Path, tmp_path: Path, small_model: Path) -> None:
        ran = run_apart(
            input_path="in", output_path="out", model_path=small_model, limit=2, cwd=tmp_path
        )
        assert ran.status == 0, ran.err
        assert "found 2 images in in" in ran.err
        assert "tensorflow in float32" in ran.err
        assert decode_record((tmp_path / "out/image00.tfrecord").read_bytes()).image_id == (
            "in/s0/image00.dcm"
        )
