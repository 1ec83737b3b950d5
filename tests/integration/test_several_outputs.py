"""One pass of a model that writes several embeddings, each into an output of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that
from builders import GRADIENT, make_dicom
from onnx_graphs import save_graph
from running import Ran, last_run, manifest, records, run_here, table

import cxr_embed
from cxr_embed.cli import main as cli_main
from cxr_embed.cli import report, search, verify
from cxr_embed.models import ModelSettings
from cxr_embed.models.config import read_model_config
from cxr_embed.models.tensorflow.chain import Stage
from cxr_embed.pipeline import EmbedImages, WriteRecords

NAMES = ("wide", "mean")
CONFIG = """
[[output]]
name = "wide"
tensor = "embedding"

[[output]]
name = "mean"
tensor = "maps"
pooling = "mean"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a vector and feature maps, and fails on a black image."""
    import tensorflow as tf

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            vector = tf.reshape(image, [-1, 64])
            place = tf.reshape(tf.range(64.0) / 64, [1, 8, 8, 1])
            maps = [image * place, image * place**2, image * tf.sin(9 * place)]
            return {"embedding": vector, "maps": tf.concat(maps, -1)}

    folder = tmp_path_factory.mktemp("models") / "two"
    module = Two()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    return folder


@pytest.fixture
def job(model: Path, tmp_path: Path) -> dict[str, Any]:
    images = tmp_path / "in"
    (images / "a").mkdir(parents=True)
    for number in range(3):
        data = make_dicom(np.roll(GRADIENT, 91 * number))
        (images / "a" / f"{number}.dcm").write_bytes(data)
    (images / "bad.dcm").write_bytes(make_dicom()[:-100])
    (tmp_path / "two.toml").write_text(CONFIG)
    return {
        "input_path": images, "output_path": tmp_path / "out", "model_path": model,
        "model_config": tmp_path / "two.toml",
    }  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the models that were called, once for each call."""
    made: list[str] = []
    run = Stage._run

    def counted(self: Stage, *arguments: Any) -> Any:
        made.append(self.wiring.output_name)
        return run(self, *arguments)

    monkeypatch.setattr(Stage, "_run", counted)
    yield made


def test_each_output_is_written_as_if_it_were_asked_for_alone(
    job: dict[str, Any], tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_here(capsys, **job)
    assert ran.status == 1, ran.err
    assert "64 floats (wide) and 3 floats (mean) out" in ran.err
    assert len(calls) == 3  # one an image, for both
    for name, text in {
        "wide": '[output]\nname = "embedding"\n',
        "mean": '[output]\nname = "maps"\npooling = "mean"\n',
    }.items():
        (tmp_path / "alone.toml").write_text(text)
        alone = job | {"model_config": tmp_path / "alone.toml", "output_path": tmp_path / name}
        assert run_here(capsys, **alone).status == 1
        together = job["output_path"] / name
        assert records(together) == records(tmp_path / name)
        assert set(records(together)) == {"0.tfrecord", "1.tfrecord", "2.tfrecord"}
        config = "_embedding_config.json"
        assert (together / config).read_bytes() == (tmp_path / name / config).read_bytes()
        assert manifest(together)["output"] == name
        assert manifest(together)["counts"] == manifest(tmp_path / name)["counts"]
        for kind in ("embedded", "failures", "skipped"):
            rows = [{**row, "file_state": ""} for row in table(together, kind)]
            assert rows == [{**row, "file_state": ""} for row in table(tmp_path / name, kind)]
    assert {path.name for path in job["output_path"].iterdir()} == set(NAMES)
    assert len({last_run(job["output_path"] / name).name for name in NAMES}) == 1
    assert ran.out.count("embedded       3") == 2


def test_only_missing_records_are_written_again_and_each_image_is_computed_once(
    job: dict[str, Any], calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(capsys, **job)
    first = {name: records(job["output_path"] / name) for name in NAMES}
    (job["output_path"] / "wide/0.tfrecord").unlink()
    (job["output_path"] / "mean/0.tfrecord").unlink()
    (job["output_path"] / "mean/1.tfrecord").write_bytes(b"torn")
    kept = (job["output_path"] / "wide/1.tfrecord").stat().st_mtime_ns
    calls.clear()
    run_here(capsys, **job)
    assert len(calls) == 2
    assert {name: records(job["output_path"] / name) for name in NAMES} == first
    assert (job["output_path"] / "wide/1.tfrecord").stat().st_mtime_ns == kept
    counts = {name: manifest(job["output_path"] / name)["counts"] for name in NAMES}
    assert (counts["wide"]["embedded"], counts["wide"]["already_there"]) == (1, 2)
    assert (counts["mean"]["embedded"], counts["mean"]["already_there"]) == (2, 1)
    assert counts["wide"]["not_attempted"] == counts["mean"]["not_attempted"] == 0


def test_an_output_of_its_own_goes_on_alone(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(capsys, **job)
    (tmp_path / "alone.toml").write_text('[output]\nname = "embedding"\n')
    alone = {"model_config": tmp_path / "alone.toml", "output_path": job["output_path"] / "wide"}
    ran = run_here(capsys, **job | alone)
    assert "already there  3" in ran.out


def test_the_folder_of_outputs_and_an_output_are_two_things(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone.toml").write_text('[output]\nname = "embedding"\n')
    alone = job | {"model_config": tmp_path / "alone.toml"}
    run_here(capsys, **alone)
    before = records(job["output_path"])
    refused = run_here(capsys, **job)
    assert refused.status == 2
    assert "holds the records of one output, and this model config has several (wide, mean)" in (
        refused.err
    )
    assert records(job["output_path"]) == before
    shutil.rmtree(job["output_path"])
    run_here(capsys, **job)
    refused = run_here(capsys, **alone)
    assert refused.status == 2
    assert "holds 6 records but no _embedding_config.json" in refused.err


def test_an_image_that_fails_is_a_row_in_each_output_and_counts_once(
    job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (job["input_path"] / "worse.dcm").write_bytes(make_dicom()[:-50])
    ran = run_here(capsys, max_failures=2, **job)
    assert ran.status == 1
    assert "stopped early" not in ran.err
    for name in NAMES:
        rows = table(job["output_path"] / name, "failures")
        assert [row["dicom_id"] for row in rows] == ["bad", "worse"]


def test_a_record_that_cannot_be_written_is_missing_in_its_output_only(
    job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (job["output_path"] / "mean" / "1.tfrecord").mkdir(parents=True)
    assert run_here(capsys, **job).status == 1
    assert [row["dicom_id"] for row in table(job["output_path"] / "mean", "failures")] == [
        "1", "bad",
    ]  # fmt: skip
    assert [row["dicom_id"] for row in table(job["output_path"] / "wide", "failures")] == ["bad"]
    assert set(records(job["output_path"] / "wide")) == {"0.tfrecord", "1.tfrecord", "2.tfrecord"}


def test_layout_limit_and_overwrite(
    job: dict[str, Any], calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"output_layout": "mirror", "limit": 2}
    assert run_here(capsys, **job, **flags).status == 0
    for name in NAMES:
        assert set(records(job["output_path"] / name)) == {"a/0.tfrecord", "a/1.tfrecord"}
    job["model_config"].write_text(CONFIG.replace('"mean"\n', '"mean"\nembedding_size = 3\n', 1))
    refused = run_here(capsys, **job, **flags)
    assert refused.status == 2
    assert "made with other settings (model_config.embedding_size)" in refused.err
    calls.clear()
    assert run_here(capsys, **job, **flags, overwrite=True).status == 0
    assert len(calls) == 2


def test_the_verbs_take_each_output(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(capsys, **job)
    for name, size in (("wide", 64), ("mean", 3)):
        output = job["output_path"] / name
        embeddings = cxr_embed.load_embeddings(output)
        assert embeddings.values.shape == (3, size)
        assert cli_main.guarded(verify.main, [f"--input_path={output}"]) == 0
        page = tmp_path / f"{name}.html"
        arguments = [f"--input_path={output}", f"--output_path={page}"]
        assert cli_main.guarded(report.main, arguments) == 0
        # An image file is embedded by the model alone, without the other output.
        query = shutil.copy(job["input_path"] / "a/1.dcm", tmp_path / "query.dcm")
        capsys.readouterr()
        arguments = [f"--input_path={output}", f"--query={query}", "--k=1"]
        assert cli_main.guarded(search.main, arguments) == 0
        assert capsys.readouterr().out.splitlines()[1].split("\t")[1:3] == ["1.000000", "1"]


def test_the_transforms_name_the_output_of_each_embedding(
    job: dict[str, Any], tmp_path: Path
) -> None:
    config = read_model_config(str(job["model_config"]))
    image = str(job["input_path"] / "a/0.dcm")
    with beam.Pipeline() as pipeline:
        found = pipeline | beam.Create([image]) | EmbedImages(
            ModelSettings(str(job["model_path"]), config)
        )  # fmt: skip
        sizes = found.embeddings | beam.Map(lambda each: (each.output, each.values.shape))

        def check(seen: Any) -> None:
            assert sorted(seen) == [("mean", (3,)), ("wide", (64,))]

        assert_that(sizes, check)
        _ = found.embeddings | WriteRecords(str(tmp_path / "mine"))
    assert set(records(tmp_path / "mine")) == {"wide/0.tfrecord", "mean/0.tfrecord"}


def test_an_onnx_graph_gives_several_from_one_call(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps: dict[str, Any] = {"maps": ("batch", "channels", "rows", "columns")}
    job["model_path"] = save_graph(tmp_path / "graph/model.onnx", extra_outputs=maps)
    for name, text in (
        ("wide", 'name = "embedding"\n'),
        ("mean", 'name = "maps"\npooling = "mean"\n'),
    ):
        (tmp_path / "alone.toml").write_text(f"[output]\n{text}")
        alone = {"model_config": tmp_path / "alone.toml", "output_path": tmp_path / name}
        run_here(capsys, **job | alone)
    ran = run_here(capsys, **job)
    assert ran.status == 1, ran.err
    for name in NAMES:
        assert len(records(tmp_path / name)) == 3
        assert records(job["output_path"] / name) == records(tmp_path / name)


def test_a_graph_whose_declared_sizes_are_wrong_is_refused(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps: dict[str, Any] = {"maps": ("batch", 3, 7, 7)}  # it has more channels
    job["model_path"] = save_graph(tmp_path / "graph/model.onnx", extra_outputs=maps)
    ran = run_here(capsys, **job)
    assert ran.status == 2
    assert "declares embeddings of wide 5, mean 3 floats and gives wide 5, mean 8" in ran.err
    assert not job["output_path"].exists()


def refused(capsys: pytest.CaptureFixture[str], job: dict[str, Any], text: str) -> Ran:
    job["model_config"].write_text(text)
    ran = run_here(capsys, **job)
    assert ran.status == 2
    assert not job["output_path"].exists()
    return ran


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[output]]\ntensor = "maps"\n', "[[output]] needs a name"),
        ('[[output]]\nname = "../a"\n', "[[output]] needs a name"),
        ('[[output]]\nname = "_runs"\n', "[[output]] needs a name"),
        ('[[output]]\nname = "a"\n[[output]]\nname = "A"\n', "two [[output]] tables have the name"),
        ('[[output]]\nname = "a"\nkind = "x"\n', "unknown key [output].kind"),
        ('[[output]]\nname = "a"\nstage = "x"\n', "output.stage 'x' is not the folder"),
        ('[[output]]\nname = "a"\ntensor = "x"\n', "the model has no output 'x'; it has"),
        ('[[output]]\nname = "a"\ntensor = "maps"\n', "not one vector an image"),
        ('[[output]]\nname = "a"\ntensor = "embedding"\nembedding_size = 9\n', "of 64 floats"),
    ],
)
def test_a_config_that_cannot_be_is_refused(
    job: dict[str, Any], text: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in refused(capsys, job, text).err


def test_another_engine_says_that_it_gives_one(
    job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_here(capsys, **job, engine="openvino")
    assert ran.status == 2
    assert "--engine=openvino gives one embedding" in ran.err
