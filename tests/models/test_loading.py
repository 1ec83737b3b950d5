"""Engines are found by name: this package's, and those of other installed packages."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from running import run_here

from cxr_embed import models
from cxr_embed.errors import UsageError
from cxr_embed.models import ModelSettings, loading
from cxr_embed.radiograph import Radiograph

# A kind of model of its own: a text file of edges, run by NumPy.
ENGINE = """
import numpy as np
from cxr_embed.models.fit import ModelInput, fit_image
from cxr_embed.models.kinds import ModelKind


class HistogramKind(ModelKind):
    label = "a list of edges"
    suffix = ".edges"


class Histogram:
    kind = HistogramKind()
    device, max_batch_size, best_batch_size = "cpu", None, 1

    def __init__(self, settings):
        self.edges = np.loadtxt(settings.local_path)
        self.input = ModelInput(16, 16, 1)
        self.embedding_size = len(self.edges) - 1

    def fit(self, radiograph):
        return fit_image(radiograph, self.input)

    def embed(self, images):
        return np.float32([np.histogram(image, self.edges)[0] for image in images])
"""
NAMES = ("[cxr_embed.engines]\nhistogram = histogram_engine:Histogram\n"
         "broken = histogram_engine:Nothing\n")  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package as pip installs it."""
    site = tmp_path / "site"
    information = site / "histogram_engine-1.2.dist-info"
    information.mkdir(parents=True)
    (site / "histogram_engine.py").write_text(ENGINE)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: histogram-engine\nVersion: 1.2\n"
    )
    (information / "entry_points.txt").write_text(NAMES)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    yield site
    sys.modules.pop("histogram_engine", None)


@pytest.fixture
def edges(tmp_path: Path) -> Path:
    path = tmp_path / "model.edges"
    np.savetxt(path, np.linspace(0, 1, 5))
    return path


def test_another_packages_engine_runs_its_own_kind_of_model(package: Path, edges: Path) -> None:
    assert models.engine_names()[-2:] == ["histogram", "broken"]
    settings = ModelSettings(str(edges))
    assert settings.engine == "histogram"
    model = models.load(settings)
    image = model.fit(Radiograph(np.full((40, 50), 65535, np.uint16)))
    assert model.embed([image]).tolist() == [[0, 0, 0, 256]]
    before = models.content_id(settings)
    edges.write_text("0 2 4")
    assert models.content_id(settings) != before


def test_the_main_job_needs_no_flag_for_it(
    package: Path, edges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dcm").write_bytes(make_dicom(GRADIENT))
    flags = {"input_path": tmp_path / "in", "output_path": tmp_path / "out", "model_path": edges}
    ran = run_here(capsys, **flags)
    assert ran.status == 0, ran.err
    made = json.loads((tmp_path / "out/_embedding_config.json").read_text())
    assert (made["engine"], made["engine_version"], made["embedding_size"]) == (
        "histogram", "1.2", 4,
    )  # fmt: skip


def test_an_engine_does_not_run_another_kind(package: Path, edges: Path) -> None:
    for engine in ("tensorflow", "openvino", "onnxruntime"):
        with pytest.raises(UsageError, match=r"a list of edges.*pass --engine=histogram"):
            models.load(ModelSettings(str(edges), engine=engine))


def test_one_that_cannot_be_imported_is_named(package: Path, edges: Path) -> None:
    with pytest.raises(UsageError, match="--engine=broken of the package histogram-engine cannot"):
        models.load(ModelSettings(str(edges), engine="broken"))


def test_an_unknown_engine_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="--engine torch is not known: one of tensorflow, openvino"
    ):
        models.load(ModelSettings(str(tmp_path), engine="torch"))


@pytest.mark.parametrize("engine", loading.ENGINES)
def test_every_engine_of_this_package_exists(engine: str) -> None:
    """Importing one imports no large library."""
    assert callable(loading.engine_class(engine))
