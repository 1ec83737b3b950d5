"""The public transforms, as another team's pipeline uses them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to
from builders import GRADIENT, make_dicom

from cxr_embed.models import ModelSettings
from cxr_embed.pipeline import (
    Embedding,
    EmbeddingModelHandler,
    EmbedImages,
    EmbedRadiographs,
    ImageRef,
    Radiograph,
    ReadRadiographs,
    WriteRecords,
)
from cxr_embed.records import decode_record
from cxr_embed.storage.parallel import usable_cores

COUNT = 12


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Twelve radiographs, two files that are none, and a path where nothing is."""
    folder = tmp_path / "in/p10"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        data = make_dicom(
            np.roll(GRADIENT, 91 * number), ViewPosition="LL" if number == 5 else "PA"
        )
        (folder / f"{number:02d}.dcm").write_bytes(data)
    (folder / "rubbish.dcm").write_bytes(b"rubbish")
    (folder / "torn.dcm").write_bytes(make_dicom()[:-100])
    return [*map(str, sorted(folder.iterdir())), f"{folder}/gone.dcm"]


def run(build: Any) -> dict[str, Any]:
    """Runs a pipeline in this process; returns its metrics by name."""
    pipeline = beam.Pipeline(runner="FnApiRunner")
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    query = result.metrics().query()
    return {
        metric.key.metric.name: metric.result
        for kind in ("counters", "distributions")
        for metric in query[kind]
    }


def test_plain_paths_become_radiographs_failures_and_skipped_images(paths: list[str]) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | beam.Create(paths) | ReadRadiographs(views="frontal")
        shapes = read.radiographs | beam.MapTuple(lambda ref, r: (ref.dicom_id, r.pixels.shape))
        expected = [(f"{n:02d}", GRADIENT.shape) for n in range(COUNT) if n != 5]
        assert_that(shapes, equal_to(expected), label="radiographs")
        failed = read.failed | "f" >> beam.Map(lambda f: (f.dicom_id, f.stage.value, f.reason))
        assert_that(
            failed,
            equal_to(
                [
                    ("rubbish", "read", "not_an_image"),
                    ("torn", "decode", "truncated"),
                    ("gone", "read", "read_error"),
                ]
            ),
            label="failed",
        )
        skipped = read.skipped | "s" >> beam.Map(lambda s: (s.dicom_id, s.reason))
        assert_that(skipped, equal_to([("05", "not_frontal")]), label="skipped")

    metrics = run(build)
    assert metrics["failed/truncated"] == metrics["skipped/not_frontal"] == 1
    assert metrics["read_microseconds"] > 0


def test_a_radiograph_knows_its_input_file(paths: list[str]) -> None:
    import google_crc32c

    data = Path(paths[0]).read_bytes()

    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | beam.Create(paths[:1]) | ReadRadiographs()
        facts = read.radiographs | beam.MapTuple(
            lambda _, radiograph: (radiograph.source.bytes, radiograph.source.crc32c)
        )
        assert_that(facts, equal_to([(len(data), f"{google_crc32c.value(data):08x}")]))

    run(build)


def crop(ref: ImageRef, radiograph: Radiograph) -> tuple[ImageRef, Radiograph]:
    """A step of another team's, such as a lung crop."""
    pixels = np.ascontiguousarray(radiograph.pixels[8:-8, 8:-8])
    return ref, dataclasses.replace(radiograph, pixels=pixels)


def test_a_step_of_ones_own_and_two_models_on_one_reading(
    paths: list[str], tmp_path: Path, tiny_model: Path, small_model: Path
) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | beam.Create(paths) | beam.Reshuffle() | ReadRadiographs()
        cropped = read.radiographs | beam.MapTuple(crop)
        for name, model, radiographs in (
            ("whole", tiny_model, read.radiographs),
            ("cropped", tiny_model, cropped),
            ("large", small_model, cropped),
        ):
            embedded = radiographs | f"Embed_{name}" >> EmbedRadiographs(str(model))
            folder = str(tmp_path / name)
            written = embedded.embeddings | f"Write_{name}" >> WriteRecords(folder)
            ids = written.embedded | f"ids_{name}" >> beam.Map(lambda e: (e.dicom_id, e.rows))
            rows = GRADIENT.shape[0] - 16 * (name != "whole")
            expected = [(f"{n:02d}", rows) for n in range(COUNT)]
            assert_that(ids, equal_to(expected), label=f"check_{name}")

    run(build)
    found = {
        name: decode_record((tmp_path / name / "03.tfrecord").read_bytes()).embedding
        for name in ("whole", "cropped", "large")
    }
    assert [len(values) for values in found.values()] == [64, 64, 4096]
    assert not np.array_equal(found["whole"], found["cropped"])


def test_batches_stay_whole_although_images_fail(paths: list[str], tiny_model: Path) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        mixed = [
            path for pair in zip(paths[:COUNT], [paths[-1]] * COUNT, strict=True) for path in pair
        ]
        images = pipeline | beam.Create(mixed) | EmbedImages(str(tiny_model), batch_size=4)
        count = images.embeddings | beam.combiners.Count.Globally()
        assert_that(count, equal_to([COUNT]), label="embedded")

    sizes = run(build)["inference_request_batch_size"]
    assert (sizes.count, sizes.min, sizes.max) == (3, 4, 4)


def test_the_handler_takes_radiographs_in_runinference_of_ones_own(
    paths: list[str], tiny_model: Path
) -> None:
    from apache_beam.ml.inference.base import RunInference

    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | beam.Create(paths) | ReadRadiographs()
        handler = EmbeddingModelHandler(ModelSettings(str(tiny_model)))
        predictions = read.radiographs | RunInference(handler)
        ids = predictions | beam.Map(lambda p: (type(p), p.dicom_id, len(p.values)))
        assert_that(ids, equal_to([(Embedding, f"{n:02d}", 64) for n in range(COUNT)]))

    run(build)


def test_what_any_image_would_meet_fails_the_pipeline(paths: list[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")

    def build(pipeline: beam.Pipeline) -> None:
        embedding = Embedding("a", "a.dcm", np.zeros(4, np.float32))
        _ = pipeline | beam.Create([embedding]) | WriteRecords("/proc/nowhere")

    with pytest.raises(Exception, match=r"/proc/nowhere/a\.tfrecord: cannot be written"):
        run(build)


def test_mirror_takes_the_folders_of_plain_paths(paths: list[str], tmp_path: Path) -> None:
    embedding = Embedding("a", "x/a.dcm", np.zeros(4, np.float32), folder="x")

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create([embedding]) | WriteRecords(str(tmp_path), layout="mirror")

    run(build)
    assert (tmp_path / "x/a.tfrecord").is_file()
    assert ImageRef.of("gs://b/p10/s1/a.dcm").folder == "b/p10/s1"
    assert ImageRef.of("/data/../p10/a.dcm").folder == "data/p10"
    assert ImageRef.of("a.dcm").record == "a.tfrecord"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ReadRadiographs(rendering="nice"), "rendering 'nice'"),
        (lambda: ReadRadiographs(views="side"), "views 'side'"),
        (lambda: ReadRadiographs(file_type="tiff"), "file_type 'tiff'"),
        (lambda: WriteRecords("out", layout="deep"), "layout 'deep'"),
    ],
)
def test_a_wrong_argument_is_refused_when_the_pipeline_is_built(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_as_many_radiographs_as_a_batch_are_read_ahead(tiny_model: Path) -> None:
    """Else the model waits for reading between two batches, where cores are few."""
    few = ReadRadiographs(threads=2)._read.threads()
    many = ReadRadiographs(threads=2, waiting=400)._read.threads()
    assert few.in_flight - few.count == usable_cores()
    assert many.in_flight - many.count == 400
    embed = EmbedImages(str(tiny_model), batch_size=400)
    assert embed._read._read.threads().in_flight == embed._read._read.threads().count + 400


FOREIGN = """
import sys, apache_beam as beam
from cxr_embed.pipeline import EmbedImages, WriteRecords

if __name__ == "__main__":
    model, output, paths, arguments = sys.argv[1], sys.argv[2], sys.argv[3].split(), sys.argv[4:]
    with beam.Pipeline(argv=arguments) as pipeline:
        images = pipeline | beam.Create(paths) | beam.Reshuffle() | EmbedImages(model)
        images.embeddings | WriteRecords(output)
"""


def test_workers_in_processes_of_their_own_give_the_same_records(
    paths: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    program = tmp_path / "foreign.py"
    program.write_text(FOREIGN)

    def build(pipeline: beam.Pipeline) -> None:
        images = pipeline | beam.Create(paths) | EmbedImages(str(tiny_model))
        _ = images.embeddings | WriteRecords(str(tmp_path / "here"))

    run(build)
    worker = f"exec {sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    elsewhere = [
        "--runner=PortableRunner", "--job_endpoint=embed",
        "--environment_type=beam:env:harness_subprocess_python:v1",
        f"--environment_config={worker}",
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, program, tiny_model, tmp_path / "apart", " ".join(paths), *elsewhere],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    here, apart = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.tfrecord")}
        for name in ("here", "apart")
    )
    assert len(here) == COUNT
    assert here == apart
