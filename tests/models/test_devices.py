"""Several devices, as pieces of one CPU, and what accelerators need besides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import three_devices
from builders import GRADIENT, make_dicom
from lookalikes import cosine
from running import arguments_of, manifest, run_here
from three_devices import BATCHES, chain_config, radiographs, vectors

import cxr_embed
from cxr_embed import models
from cxr_embed.efficientnet.export import export_model
from cxr_embed.errors import MachineFault, UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.models.config import ModelConfig
from cxr_embed.models.sharing import SharedModel
from cxr_embed.models.tensorflow import devices


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return three_devices.save_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return three_devices.save_greedy(tmp_path_factory.mktemp("greedy"))


def on_three_devices(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(three_devices.__file__)
    ran = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(cxr_embed.__file__).parents[1])},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exporter's network with the fewest operations: each device has a copy of all of them."""
    folder = tmp_path_factory.mktemp("models") / "lite0"
    export_model(folder, architecture="efficientnet-lite0", image_size=64, embedding_size=64)
    return folder


@pytest.fixture(scope="module")
def three(
    small_model: Path, chain: str, greedy: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """What a process with three devices computed."""
    output = tmp_path_factory.mktemp("three") / "out.npz"
    on_three_devices("embed", str(output), str(small_model), chain, greedy)
    return dict(np.load(output))


def alone(path: str | Path, config: ModelConfig | None = None) -> np.ndarray:
    """The same embeddings on the whole CPU."""
    return vectors(models.load(ModelSettings(str(path), config or ModelConfig(), device="cpu")))


def test_replicas_give_what_one_device_gives(
    three: dict[str, np.ndarray], small_model: Path
) -> None:
    expected = alone(small_model)
    assert str(three["device"]) == "3 x cpu"
    assert int(three["best_batch_size"]) == 6
    for number, count in enumerate(BATCHES):
        np.testing.assert_allclose(three[f"batch_{number}"], expected[:count], rtol=1e-4, atol=1e-5)


def test_batches_of_any_length_have_one_shape(three: dict[str, np.ndarray]) -> None:
    """Each further trace would be a compilation on a TPU or with XLA."""
    assert int(three["traces"]) == 1


def test_serialized_examples_on_replicas(three: dict[str, np.ndarray], small_model: Path) -> None:
    expected = alone(small_model, ModelConfig(signature="serialized_example"))
    np.testing.assert_allclose(three["examples"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pruned", [False, True])
def test_chains_on_replicas(three: dict[str, np.ndarray], chain: str, pruned: bool) -> None:
    """A model that is locked at one image takes one a device."""
    assert int(three["locked_at_most"]) == 3
    expected = alone(chain, chain_config(pruned=pruned))
    found = three["pruned" if pruned else "locked"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_replicas_in_bfloat16(three: dict[str, np.ndarray], small_model: Path) -> None:
    expected = alone(small_model)
    assert not np.allclose(three["bfloat16"], expected, rtol=1e-4)
    for found, exact in zip(three["bfloat16"], expected, strict=True):
        assert cosine(found, exact) > 0.999


def test_replicas_that_run_out_of_memory_take_less(
    three: dict[str, np.ndarray], greedy: str
) -> None:
    model = models.load(ModelSettings(greedy))  # which hands on the pixels themselves
    pixels = [model.fit(radiograph).ravel() for radiograph in radiographs(max(BATCHES))]
    np.testing.assert_array_equal(three["greedy"], pixels)
    assert three["warnings"].tolist() == [
        "out of memory with 4 images a call on 3 x cpu: continuing with 2"
    ]


def test_the_main_job_on_replicas(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(7):
        (tmp_path / f"in/{number}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, 90 * number)))
    flags: dict[str, Any] = {"input_path": tmp_path / "in", "model_path": tiny_model}
    assert run_here(capsys, output_path=tmp_path / "one", **flags).status == 0
    ran = on_three_devices("run", *arguments_of(output_path=tmp_path / "three", **flags))
    assert "on 3 x cpu with tensorflow in float32, batch size 3" in ran.stderr
    assert manifest(tmp_path / "three")["device"] == "3 x cpu"
    one, several = (cxr_embed.load_embeddings(str(tmp_path / name)) for name in ("one", "three"))
    assert several.ids == one.ids
    np.testing.assert_allclose(several.values, one.values, rtol=1e-4, atol=1e-5)


def test_memory_that_lacks_for_one_image_is_the_machines_fault(greedy: str) -> None:
    """TensorFlow waits ten seconds for memory before it gives up."""
    hopeless = np.ones((4, 4, 1), np.float32)
    model = SharedModel(ModelSettings(greedy))
    with pytest.raises(MachineFault, match=r"ResourceExhaustedError.*OOM when allocating"):
        model.embed_each([hopeless])
    assert len(model.embed_each([0 * hopeless, 0 * hopeless])) == 2


def test_a_tpu_takes_no_pngs() -> None:
    """Refused before anything is placed on a device."""
    part = SimpleNamespace(takes_strings=True, names=["input_example"])
    with pytest.raises(UsageError, match="input_example takes PNGs, which a TPU cannot read"):
        devices.Placement("tpu").ready(part)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "complaint"),
    [("float32", "also pass --precision=bfloat16"), ("bfloat16", "the TPU cannot be used: .+")],
)
def test_a_tpu_that_does_not_start_is_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, precision: str, complaint: str
) -> None:
    """TensorFlow's own words where it is built without TPUs: nothing here is made up but one."""
    monkeypatch.setattr(devices, "_sees_tpu", lambda: True)
    with pytest.raises(UsageError, match=complaint) as caught:
        devices.choose("tpu", precision)
    assert "\n" not in str(caught.value)
