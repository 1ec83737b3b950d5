"""The main job's flags: good values, bad values, and the exit status of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from running import Ran, all_files, run_apart, run_here

from cxr_embed.cli import main as cli_main
from cxr_embed.cli import run
from cxr_embed.errors import UsageError

# The main job's flags as documented; a flag that comes or goes has to be told here and in docs/.
DOCUMENTED = {
    "dicomweb_query",
    "input_path", "input_list", "input_file_type", "output_path", "output_layout", "model_path",
    "model_config", "embeddings_project", "endpoint_location", "endpoint_id", "rendering", "views",
    "device", "engine", "precision", "batch_size", "decode_scale", "decode_threads", "limit",
    "max_pixels", "overwrite", "search_archives", "moved_inputs", "skip_errors", "max_failures",
    "verbosity", "watch",
}  # fmt: skip


@pytest.fixture
def job(tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / f"in/{number}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, number)))

    def start(*extra: str, **flags: Any) -> Ran:
        defaults = {
            "input_path": tmp_path / "in",
            "output_path": tmp_path / "out",
            "model_path": small_model,
        }
        return run_here(capsys, *extra, **(defaults | flags))

    return start


def test_the_flags_are_the_documented_ones() -> None:
    assert set(run.make_flags()) == DOCUMENTED


def test_help_shows_every_flag_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_here(capsys, "--help")
    assert ran.status == 0
    for name in DOCUMENTED:
        assert f"--{name}" in ran.out
    assert "(default: cxr_foundation)" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"input_path": None}, "--input_path and --input_list"),
        ({"input_list": "x"}, "--input_path and --input_list"),
        ({"output_path": None}, "--output_path is missing"),
        ({"input_path": "/nowhere"}, "/nowhere does not exist"),
        ({"model_path": "/nowhere"}, "--model_path /nowhere does not exist"),
        ({"model_config": "/nowhere"}, "--model_config /nowhere cannot be read"),
        ({"output_path": "/proc/x"}, "--output_path /proc/x cannot be written to"),
        ({"rendering": "bone"}, "cxr_foundation|dicom"),
        ({"device": "quantum"}, "auto|cpu|gpu|tpu"),
        ({"device": "gpu"}, "--device=gpu"),
        ({"device": "tpu"}, "--device=tpu"),
        ({"engine": "onnx"}, "tensorflow|openvino|onnxruntime"),
        ({"engine": "onnxruntime"}, "a TensorFlow SavedModel"),
        ({"model_path": "/nowhere.onnx"}, "--model_path /nowhere.onnx does not exist"),
        ({"precision": "int8"}, "float32|bfloat16"),
        ({"views": "lateral"}, "all|frontal"),
        ({"input_file_type": "tiff"}, "auto|dicom|png|jpeg"),
        ({"output_layout": "deep"}, "flat|mirror"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": "many"}, "batch_size"),
        ({"limit": -5}, "limit"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"max_failures": "x"}, "max_failures"),
        ({"flagfile": "/nowhere.flags"}, "/nowhere.flags"),
        ({"endpoint_id": "123", "model_path": None}, "--embeddings_project is missing"),
        (
            {
                "endpoint_id": "1",
                "embeddings_project": "p",
                "endpoint_location": "x.org/",
                "model_path": None,
            },
            "--endpoint_location x.org/ is not a valid name",
        ),
        (
            {"endpoint_id": "1", "embeddings_project": "p", "endpoint_location": "europe-west4"},
            "--model_path cannot be used with --endpoint_id",
        ),
        ({"model_config": "elixr_v9"}, "one of the included configs"),
        ({"ovewrite": True}, "unknown flag --ovewrite; did you mean --overwrite?"),
        ({"no_such_flag": 3}, "unknown flag --no_such_flag"),
        ({"direct_num_workers": "x"}, "--direct_num_workers"),
        ({"runner": "NoSuchRunner"}, "--runner NoSuchRunner"),
    ],
)
def test_a_mistake_is_one_line_status_2_and_nothing_written(
    job: Any, tmp_path: Path, flags: dict[str, Any], complaint: str
) -> None:
    ran = job(**flags)
    assert ran.status == 2
    assert complaint in ran.err.splitlines()[-1]
    assert ran.err.count("cxr-embed:") == 1
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_a_flag_that_nobody_knows_is_named_first() -> None:
    with pytest.raises(UsageError, match="unknown flag --inptu_path; did you mean --input_path"):
        run.main(["--inptu_path=x"])


def test_a_stray_word_is_named(job: Any) -> None:
    ran = job("in/0.dcm")
    assert ran.status == 2
    assert "unknown argument in/0.dcm" in ran.err


def test_a_collision_is_found_before_anything_runs(job: Any, tmp_path: Path) -> None:
    (tmp_path / "in/s").mkdir()
    (tmp_path / "in/s/0.dcm").write_bytes(make_dicom())
    ran = job()
    assert ran.status == 2
    assert "in/0.dcm and" in ran.err
    assert "--output_layout=mirror" in ran.err
    assert not (tmp_path / "out").exists()


def test_an_unusable_model_writes_nothing(job: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    class Text(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def __call__(self, text: Any) -> Any:
            return text

    module = Text()
    tf.saved_model.save(
        module, str(tmp_path / "m"), signatures={"serving_default": module.__call__}
    )
    ran = job(model_path=tmp_path / "m")
    assert ran.status == 2
    assert "neither a batch of images" in ran.err
    assert not (tmp_path / "out").exists()


def test_flagfiles_hold_our_flags_and_beams(job: Any, tmp_path: Path) -> None:
    (tmp_path / "x.flags").write_text(
        "# a comment\n--limit=1\n--runner=DirectRunner\n--direct_num_workers=1\n--rendering=dicom\n"
    )
    ran = job(flagfile=tmp_path / "x.flags")
    assert ran.status == 0, ran.err
    assert all_files(tmp_path / "out") == {"0.tfrecord", "_embedding_config.json"}


@pytest.mark.parametrize("extra", [["--runner=DirectRunner"], ["--runner", "FnApiRunner"]])
def test_the_direct_runner_is_the_in_process_one(job: Any, extra: list[str]) -> None:
    assert job(*extra, limit=1).status == 0


@pytest.mark.parametrize(
    "flags",
    [
        {"device": "cpu"},
        {"precision": "bfloat16"},
        {"engine": "openvino"},
        {"input_file_type": "dicom"},
        {"max_pixels": 5000},
        {"nooverwrite": True},
        {"verbosity": -1},
    ],
)
def test_good_values_work(job: Any, tmp_path: Path, flags: dict[str, Any]) -> None:
    if flags.get("engine") == "openvino":
        pytest.importorskip("openvino")
    ran = job(**flags)
    assert ran.status == 0, ran.err
    assert len(all_files(tmp_path / "out")) == 3


def test_verbs_are_listed_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main([]) == 0
    assert "export-model" in capsys.readouterr().out
    assert cli_main.main(["dance"]) == 2
    assert "unknown verb dance" in capsys.readouterr().err
    assert cli_main.main(["run", "--help"]) == 0


def test_what_breaks_is_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: list[str]) -> int:
        raise RuntimeError("disk on fire")

    assert cli_main.guarded(broken, []) == 3
    assert "cxr-embed: stopped by an error: RuntimeError: disk on fire" in capsys.readouterr().err


def test_help_is_quick_to_import() -> None:
    """No TensorFlow, Beam or pydicom for somebody who only wants to read."""
    import subprocess
    import sys

    code = (
        "import sys; from cxr_embed.cli import main, run; run.main(['--help']);"
        "print([m for m in ('tensorflow', 'apache_beam', 'pydicom', 'google.cloud.storage') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_users_mistake_apart_shows_no_traceback(tmp_path: Path) -> None:
    ran = run_apart(input_path=tmp_path / "none", output_path=tmp_path / "out")
    assert ran.status == 2
    assert ran.err == f"cxr-embed: --input_path {tmp_path}/none does not exist\n"
