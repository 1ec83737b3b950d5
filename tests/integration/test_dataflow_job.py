"""What Dataflow would be given, read from a submission that ends in a file instead of there."""

from __future__ import annotations

import base64
import bz2
import contextlib
import io
import json
import os
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations
from buckets import contents, emulator, google_machine, spoken_to
from builders import make_dicom
from onnx_graphs import save_graph
from running import Ran, arguments_of

from cxr_embed import storage
from cxr_embed.cli import main, run
from cxr_embed.pipeline.listing import read_work_list, write_work_list
from cxr_embed.storage import find_images as sources

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
IMAGE = "us-central1-docker.pkg.dev/some-project/cxr-embed/any:1"
PRESETS = {
    "dataflow_cpu": ("n2-standard-8", None),
    "dataflow_gpu": ("g2-standard-8", "type:nvidia-l4;count:1;install-nvidia-driver"),
    "dataflow_tpu": ("ct5lp-hightpu-1t", "type:tpu-v5-lite-podslice;topology:1x1"),
}


@dataclass
class Submission:
    """A submission that ended in a template: the job, its graph, and all that was uploaded."""

    preset: str
    ran: Ran
    job: dict[str, Any]
    graph: beam_runner_api_pb2.Pipeline
    uploaded: dict[str, bytes]
    output: dict[str, bytes]


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with emulator() as address, spoken_to(address), google_machine():
        for number in range(5):
            storage.write_whole(f"gs://bucket/in/{number}.dcm", make_dicom())
        yield address


def submit(model: Path | str, preset: str, *extra: str, **flags: Any) -> Ran:
    place = f"gs://bucket/{preset}"
    flags = {
        "flagfile": CONFIGS / f"{preset}.flags", "input_path": "gs://bucket/in",
        "output_path": f"{place}/out", "model_path": model, "project": "some-project",
        "region": "us-central1", "temp_location": f"{place}/tmp",
        "staging_location": f"{place}/staging", "sdk_container_image": IMAGE,
    } | flags  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.guarded(run.main, [*arguments_of(**flags), *extra])
    return Ran(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module", params=PRESETS)
def submission(request: pytest.FixtureRequest, service: str, tiny_model: Path) -> Submission:
    preset: str = request.param
    ran = submit(tiny_model, preset, template_location=f"gs://bucket/{preset}/template.json")
    assert ran.status == 0, ran.err
    uploaded = contents(f"gs://bucket/{preset}")
    graph = next(data for name, data in uploaded.items() if name.endswith("/pipeline.pb"))
    output = {
        name.removeprefix("out/"): data for name, data in uploaded.items() if name[:4] == "out/"
    }
    return Submission(
        preset,
        ran,
        json.loads(uploaded["template.json"]),
        beam_runner_api_pb2.Pipeline.FromString(graph),
        uploaded,
        output,
    )


def test_machines_accelerators_and_container_are_asked_for(submission: Submission) -> None:
    machine, accelerator = PRESETS[submission.preset]
    environment = submission.job["environment"]
    (pool,) = environment["workerPools"]
    assert pool["machineType"] == machine
    wanted = [] if accelerator is None else [f"worker_accelerator={accelerator}"]
    assert environment.get("serviceOptions", []) == wanted
    assert {"use_runner_v2", "no_use_multiple_sdk_containers"} <= set(environment["experiments"])
    assert {each["containerImage"] for each in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert pool["numThreadsPerWorker"] >= 16
    assert submission.job["type"] == "JOB_TYPE_BATCH"


def test_nothing_of_the_launching_program_travels(submission: Submission) -> None:
    options = submission.job["environment"]["sdkPipelineOptions"]["options"]
    assert options["save_main_session"] is False
    assert not [name for name in submission.uploaded if "main_session" in name]
    (pool,) = submission.job["environment"]["workerPools"]
    staged = {package["name"] for package in pool["packages"]}
    assert staged <= {"submission_environment_dependencies.txt"}
    assert sum(map(len, submission.uploaded.values())) < 1 << 20


def stages_of(graph: beam_runner_api_pb2.Pipeline) -> list[translations.Stage]:
    """Returns the graph's stages as a runner fuses them: those ends are where elements travel."""
    urns = common_urns.primitives
    phases = [
        phase
        for phase in translations.standard_optimize_phases()
        if phase.__name__ not in ("impulse_to_input", "setup_timer_mapping")
    ]
    _, stages = translations.create_and_optimize_stages(
        graph, phases, frozenset([urns.GROUP_BY_KEY.urn, urns.IMPULSE.urn])
    )
    return list(stages)


def stage_with(stages: list[translations.Stage], name: str) -> list[str]:
    named = [[transform.unique_name for transform in stage.transforms] for stage in stages]
    (found,) = (names for names in named if any(name in each for each in names))
    return found


def test_pixels_stay_in_the_stage_that_read_them(submission: Submission) -> None:
    steps = [t.unique_name for t in submission.graph.components.transforms.values()]
    together = stage_with(stages_of(submission.graph), "Embed/Model/BeamML_RunInference")
    for step in ("Read/Files", "Embed/Fit", "Write/Records", "Tables/Embedded", "Tables/NotRead"):
        assert [name for name in steps if name.startswith(step)]
        assert [name for name in together if name.startswith(step)], step
    # Elements travel twice: references on their way in, and one word a bundle to the last step.
    shuffles = [
        t.unique_name
        for t in submission.graph.components.transforms.values()
        if t.spec.urn == common_urns.primitives.GROUP_BY_KEY.urn
    ]
    spread, stored = ([n for n in shuffles if word in n] for word in ("Spread/", "Tables/All"))
    assert len(spread) == len(stored) == 1
    others = set(shuffles) - {*spread, *stored}
    assert all(name.startswith("List/") for name in others), others


def test_between_the_list_and_the_tables_are_the_three_public_steps(submission: Submission) -> None:
    steps = {
        t.unique_name.partition("/")[0] for t in submission.graph.components.transforms.values()
    }
    assert {s for s in steps if s[:4] != "ref_"} == {
        "List",
        "Spread",
        "Read",
        "Embed",
        "Write",
        "Tables",
    }


def pickled_modules(graph: beam_runner_api_pb2.Pipeline) -> set[str]:
    """Returns the modules that anything pickled in the graph refers to."""
    found = set()
    for transform in graph.components.transforms.values():
        if transform.spec.urn != common_urns.primitives.PAR_DO.urn:
            continue
        payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
        pickle = bz2.decompress(base64.b64decode(payload.do_fn.payload))
        words = [word for _, word, _ in pickletools.genops(pickle) if isinstance(word, str)]
        found.update(words)
    return found


def test_no_tensorflow_object_and_no_pixel_is_pickled(submission: Submission) -> None:
    words = pickled_modules(submission.graph)
    assert "cxr_embed.pipeline.read" in words  # by name: the worker imports it
    assert not [word for word in words if word.startswith(("tensorflow.", "keras", "numpy", "cv2"))]
    assert len(submission.graph.SerializeToString()) < 200_000


def test_the_images_are_listed_beside_the_records(submission: Submission) -> None:
    assert b"gs://bucket/in/0.dcm" not in submission.graph.SerializeToString()
    (name,) = (name for name in submission.output if "/todo/" in name)
    paths = [json.loads(line)[0] for line in submission.output[name].splitlines()]
    assert paths == [f"gs://bucket/in/{number}.dcm" for number in range(5)]


def test_handing_over_is_no_failure_and_needs_no_accelerator(submission: Submission) -> None:
    assert "handed over    to the template gs://bucket/dataflow" in submission.ran.out
    assert "64 floats out" in submission.ran.err
    assert json.loads(submission.output["_embedding_config.json"])["embedding_size"] == 64
    (name,) = (name for name in submission.output if name.endswith("manifest.json"))
    manifest = json.loads(submission.output[name])
    assert "template" in manifest["handed_over"]
    assert manifest["counts"]["found"] == 5
    assert manifest["counts"]["not_attempted"] == 0


def test_what_is_on_this_machine_is_refused(service: str, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(make_dicom())
    ran = submit(tiny_model, "dataflow_cpu", input_path=tmp_path, output_path="gs://bucket/x")
    assert ran.status == 2
    assert f"{tmp_path}/1.dcm is a local path, which Dataflow's workers cannot read" in ran.err
    ran = submit(tiny_model, "dataflow_cpu", output_path=tmp_path / "out")
    assert ran.status == 2
    assert "--output_path" in ran.err
    assert not (tmp_path / "out").exists()
    assert list(storage.list_files("gs://bucket/x")) == []


def test_a_batch_that_the_model_cannot_take_is_refused_before_anything_runs(
    service: str, tmp_path: Path
) -> None:
    import tensorflow as tf

    class One(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"embedding": tf.reshape(image, [1, 64])}

    module = One()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.__call__})
    ran = submit(
        tmp_path, "dataflow_gpu", template_location="gs://bucket/none.json", batch_size=4,
        output_path="gs://bucket/one",
    )  # fmt: skip
    assert ran.status == 2
    assert "at most 1" in ran.err
    assert not storage.exists("gs://bucket/none.json")
    assert list(storage.list_files("gs://bucket/one")) == []


def test_an_onnx_graph_is_handed_over_like_a_saved_model(service: str, tmp_path: Path) -> None:
    graph = save_graph(tmp_path / "model.onnx", data_file="model.onnx.data")
    for path in tmp_path.iterdir():
        storage.write_whole(f"gs://bucket/graph/{path.name}", path.read_bytes())
    flags = {"template_location": "gs://bucket/onnx.json", "output_path": "gs://bucket/onnx"}
    ran = submit("gs://bucket/graph/model.onnx", "dataflow_gpu", **flags)
    assert ran.status == 0, ran.err
    assert "5 floats out, on gpu with onnxruntime in float32" in ran.err
    written = json.loads(storage.read_bytes("gs://bucket/onnx/_embedding_config.json"))
    assert (written["engine"], written["embedding_size"]) == ("onnxruntime", 5)
    ran = submit(graph, "dataflow_tpu", **flags | {"output_path": "gs://bucket/onnx-tpu"})
    assert ran.status == 2
    assert "--device=tpu: ONNX Runtime runs on CPUs and NVIDIA GPUs only" in ran.err


def test_the_longest_list_is_a_few_small_files(service: str) -> None:
    refs = [
        sources.ImageRef(f"gs://bucket/é/{number}.dcm", str(number), f"{number}.tfrecord", True)
        for number in range(25_000)
    ]
    names = write_work_list("gs://bucket/run", refs)
    assert len(names) == 3
    assert [ref for name in names for ref in read_work_list(name)] == refs
    assert all(len(data) < 2 << 20 for data in contents("gs://bucket/run").values())
    assert os.environ["STORAGE_EMULATOR_HOST"] == service
