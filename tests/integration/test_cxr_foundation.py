"""CXR Foundation v2 as published, with look-alikes of its models on a stand-in for the Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from hub_server import Hub, files_below
from huggingface_hub import constants
from lookalikes import save_elixr_b, save_elixr_c
from running import command, manifest, records, run_here

import cxr_embed
from cxr_embed.models.tensorflow.chain import Stage

PATH = "hf://google/cxr-foundation"
STAGES = ("elixr-c-v2-pooled", "pax-elixr-b-text")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cxr-foundation")
    for name, save in zip(STAGES, (save_elixr_c, save_elixr_b), strict=True):
        save(folder / name)
    return folder


@pytest.fixture
def hub(
    published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    files = files_below(published) | {"README.md": b"card", "pax-elixr-b-text.h5": b"other"}
    with Hub().open() as server:
        server.add("google/cxr-foundation", files, gated=True)
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", server.token)
        cache = tmp_path_factory.mktemp("hub")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield server


def images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, 91 * number)))
    return folder


def test_one_command_writes_both_embeddings(
    hub: Hub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    calls: Counter[str] = Counter()
    run = Stage._run

    def counted(self: Stage, *arguments: Any) -> Any:
        calls[self.wiring.output_name] += 1
        return run(self, *arguments)

    monkeypatch.setattr(Stage, "_run", counted)
    job = {"input_path": images(tmp_path / "in", 3), "output_path": tmp_path / "out"}
    ran = run_here(capsys, **job, model_path=PATH, model_config="elixr_v2")
    assert ran.status == 0, ran.err
    assert calls == {"feature_maps_0": 3, "all_contrastive_img_emb": 3}
    assert {path.partition("/")[0] for path in hub.paths} == set(STAGES)
    commit = hub.repositories["google/cxr-foundation"].refs["main"]
    for name, config, size in (
        ("general", "elixr_c_v2_pooled_1376", 1376),
        ("contrastive", "elixr_v2_contrastive", 4096),
    ):
        output = job["output_path"] / name
        assert manifest(output)["model_revision"] == commit
        assert cxr_embed.load_embeddings(output).values.shape == (3, size)
        # The config of this embedding alone goes on in the same output, from a local copy, too.
        alone = {"output_path": output, "model_path": published, "model_config": config}
        ran = run_here(capsys, **job | alone)
        assert "already there  3" in ran.out, ran.err
        ran = run_here(capsys, **job | alone | {"output_path": tmp_path / name})
        assert records(output) == records(tmp_path / name)


@pytest.fixture(scope="module")
def textual(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second model has an op of tensorflow-text, as the published one has."""
    folder = tmp_path_factory.mktemp("textual")
    (folder / STAGES[0]).symlink_to(published / STAGES[0])
    script = f"""
import sys
import tensorflow as tf, tensorflow_text
from lookalikes import save_elixr_b
save_elixr_b({str(folder / STAGES[1])!r}, with_text=True)
"""
    path = os.pathsep.join(map(str, [Path(__file__).parents[1], *sys.path]))
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": path}
    )
    return folder


@pytest.mark.slow
def test_the_ops_of_tensorflow_text_are_there_when_the_model_needs_them(
    textual: Path, tmp_path: Path
) -> None:
    job = {"input_path": images(tmp_path / "in", 1), "output_path": tmp_path / "out"}
    arguments = command(**job, model_path=textual, model_config="elixr_v2")
    (tmp_path / "without").mkdir()
    (tmp_path / "without/tensorflow_text.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    without = subprocess.run(
        arguments, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert without.returncode == 2
    assert "pip install 'cxr-embed[cxr-foundation]'" in without.stderr
    assert "Traceback" not in without.stderr
    assert not (tmp_path / "out").exists()
    there = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert there.returncode == 0, there.stderr
    assert len(records(tmp_path / "out")) == 2
