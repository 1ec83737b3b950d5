"""The hint that another engine is faster speaks only of what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cxr_embed.models import ModelSettings
from cxr_embed.models.faster_engine import hint, other_engines
from cxr_embed.models.kinds import DESCRIPTION_FILE

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

MEASURED = "vendor_id : GenuineIntel\nflags : sse avx512f"


@pytest.fixture
def l2(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / DESCRIPTION_FILE).write_text(json.dumps({"architecture": "efficientnet-l2"}))
    return folder


@pytest.fixture
def processors(tmp_path: Path) -> Path:
    file = tmp_path / "cpuinfo"
    file.write_text(MEASURED)
    return file


def test_it_names_the_flag(l2: Path, processors: Path) -> None:
    line = hint(ModelSettings(str(l2)), processors)
    assert line.startswith("hint: --engine=openvino")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "others", [{"engine": "openvino"}, {"precision": "bfloat16"}, {"device": "gpu"}]
)
def test_there_is_none_where_it_was_not_measured(
    l2: Path, processors: Path, others: dict[str, str]
) -> None:
    assert hint(ModelSettings(str(l2), **others), processors) == ""


@pytest.mark.parametrize("text", ["vendor_id : AuthenticAMD avx512f", "GenuineIntel avx2", ""])
def test_there_is_none_on_other_processors(l2: Path, processors: Path, text: str) -> None:
    processors.write_text(text)
    assert hint(ModelSettings(str(l2)), processors) == ""
    assert hint(ModelSettings(str(l2)), processors / "absent") == ""


def test_there_is_none_for_other_networks(tmp_path: Path, processors: Path) -> None:
    assert hint(ModelSettings(str(tmp_path)), processors) == ""
    for text in ("[]", "no JSON", json.dumps({"architecture": "efficientnet-b0"})):
        (tmp_path / DESCRIPTION_FILE).write_text(text)
        assert hint(ModelSettings(str(tmp_path)), processors) == ""


def test_the_same_model_on_openvino_is_what_benchmark_measures(l2: Path) -> None:
    (other,) = other_engines(ModelSettings(str(l2)))
    assert (other.path, other.engine) == (str(l2), "openvino")
