"""`manifest.json` of runs whose graph did not run here."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest

from cxr_embed.elements import ImageRef
from cxr_embed.models import Endpoint, ModelSettings
from cxr_embed.models.config import ModelConfig
from cxr_embed.pipeline.launch import Metrics
from cxr_embed.runs.execute import Result
from cxr_embed.runs.fingerprint import make_fingerprint
from cxr_embed.runs.manifest import Conditions, machine, make_manifest, versions
from cxr_embed.runs.plan import Job, Plan

STARTED = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, datetime.UTC)
MODEL = ModelSettings.of_endpoint(Endpoint("p", "us-central1", "7"), ModelConfig())
FINGERPRINT = make_fingerprint(
    model_sha256="m", model_config=None, rendering="dicom", precision="hosted", engine="vertex"
)
PLAN = Plan(
    Job([ImageRef("in/1.dcm", "1")], "out", MODEL, runner="DataflowRunner"),
    [], [], [], FINGERPRINT, FINGERPRINT,
)  # fmt: skip
CONDITIONS = Conditions(STARTED, 8, "a hosted endpoint", 16, load_seconds=0.5)
COUNTS = {"found": 1, "embedded": 0, "already_there": 0, "not_attempted": 1}


def test_a_job_that_was_handed_over_says_where() -> None:
    result = Result(PLAN.folder, COUNTS, ended="handed_over", handed_over="the template gs://b/t")
    found = json.loads(json.dumps(make_manifest(PLAN, result, None, CONDITIONS)))
    assert (found["ended"], found["handed_over"]) == ("handed_over", "the template gs://b/t")
    assert (found["runner"], found["engine"]) == ("DataflowRunner", "vertex")
    assert found["started"] == "2026-01-02T03:04:05+00:00"
    assert found["model_path"] == "projects/p/locations/us-central1/endpoints/7"
    assert (found["bytes_read"], found["inference"]["images"]) == (0, 0)
    assert found["images_per_second"] == 0


def test_counters_of_workers_become_seconds_of_stages() -> None:
    metrics = Metrics(
        {"read_microseconds": 2_500_000, "bytes_read": 99, "num_inferences": 7},
        {
            "inference_batch_latency_micro_secs": {"count": 1, "sum": 1_250_000},
            "load_model_latency_milli_secs": {"count": 2, "sum": 3000},
        },
    )
    result = Result(PLAN.folder, {**COUNTS, "embedded": 7}, failed={"truncated": 1}, seconds=4.0)
    found = make_manifest(PLAN, result, metrics, CONDITIONS)
    assert found["seconds"] == {
        "wall": 4.0, "until_first_image": 0.0, "read": 2.5, "infer": 1.25, "model_load": 3.5,
    }  # fmt: skip
    assert (found["bytes_read"], found["inference"]["images"]) == (99, 7)
    assert found["images_per_second"] == 2.0
    assert found["counts"]["failed"] == {"truncated": 1}


def test_versions_and_machine_name_no_machine() -> None:
    assert {"python", "cxr-embed", "apache-beam", "tensorflow"} < set(versions())
    assert set(machine()) == {"system", "machine", "cpus"}


def test_a_model_in_a_bucket_is_named_by_its_address() -> None:
    model = ModelSettings("gs://models/m", revision="0123")
    plan = replace(PLAN, job=replace(PLAN.job, model=model))
    found = make_manifest(plan, Result(plan.folder, COUNTS), None, CONDITIONS)
    assert found["model_path"] == "gs://models/m"


@pytest.mark.parametrize("form", [["--dicomweb_query={}"], ["--dicomweb_query", "{}"]])
def test_the_command_does_not_say_whose_images_were_asked_for(
    form: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = [word.format("Modality=DX&PatientID=123") for word in form]
    monkeypatch.setattr("sys.argv", ["run_inference", *query, "--limit=3"])
    result = Result(PLAN.folder, COUNTS, ended="handed_over", handed_over="x")
    command = make_manifest(PLAN, result, None, CONDITIONS)["command"]
    shown = [word.format("Modality=DX&PatientID=…") for word in form]
    assert command == ["run_inference", *shown, "--limit=3"]
