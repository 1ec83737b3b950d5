"""`evaluate --neighbours` as a user meets it."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import write_example

from cxr_embed.heads import agreement_files

DATA = ("--neighbours", "--input_path=data/outputs", "--labels_csv=data/labels.csv")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    write_example(folder, distance=4.0)
    return folder


@pytest.fixture
def evaluate(example: Path, monkeypatch: pytest.MonkeyPatch, do: Any) -> Any:
    monkeypatch.chdir(example)
    return functools.partial(do, "evaluate", "--num_bootstrap=100")


def test_labels_alone(evaluate: Any, tmp_path: Path) -> None:
    """Without predictions, all columns of 0 and 1 are labels."""
    out = tmp_path / "out"
    ran = evaluate(*DATA, "--num_neighbours=7", f"--output_path={out}")
    assert ran.status == 0, ran.err
    assert "AIRSPACE_OPACITY: " in ran.out and "7 nearest of others" in ran.out
    found = json.loads((out / "evaluation.json").read_text())
    assert list(found) == ["AIRSPACE_OPACITY", "EFFUSION"]
    opacity = found["AIRSPACE_OPACITY"]["neighbours"]
    assert opacity["k"] == 7
    assert opacity["lift"]["low"] > 1.2
    assert opacity["agreement"]["low"] > opacity["chance"]["high"]
    assert found["EFFUSION"]["neighbours"]["n"] == 257  # blanks are left out
    with (out / agreement_files.TABLE_NAME).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == ["agreement", "chance", "lift"] * 2
    assert float(rows[0]["estimate"]) == opacity["agreement"]["value"]
    assert (out / agreement_files.PLOT_NAME).read_bytes().startswith(b"\x89PNG")
    again = evaluate(*DATA, f"--output_path={out}")
    assert again.status == 2 and "--overwrite" in again.err


def test_beside_predictions(evaluate: Any, tmp_path: Path) -> None:
    rows = ["dicom_id,image_id,split,group,EFFUSION_label,EFFUSION_probability"]
    rows += [f"im{n:05d},im{n:05d}.dcm,test,{n},{n % 2},{(n % 5) / 5}" for n in range(90)]
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join(rows))
    out = tmp_path / "out"
    ran = evaluate(*DATA, f"--predictions={table}", f"--output_path={out}")
    assert ran.status == 0, ran.err
    found = json.loads((out / "evaluation.json").read_text())
    assert list(found) == ["EFFUSION"]
    assert {"auroc", "neighbours"} <= found["EFFUSION"].keys()
    assert {"roc.png", "neighbours.png", "evaluation.csv"} <= {p.name for p in out.iterdir()}


def test_one_split_only(evaluate: Any) -> None:
    ran = evaluate(*DATA, "--head_name=AIRSPACE_OPACITY", "--split_name=tune")
    assert ran.status == 0, ran.err
    assert "of 60 images, 20 patients" in ran.out or "of 60 images, 1" in ran.out
    assert "EFFUSION" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--neighbours", "--input_path=data/outputs"), "--neighbours needs --labels_csv"),
        (("--neighbours", "--labels_csv=data/labels.csv"), "--data_dir is missing"),
        ((*DATA, "--head_name=NOTHING"), "NOTHING"),
        ((*DATA, "--split_name=holdout"), "--split_name holdout: the labels have test, train"),
        ((), "pass one of --predictions and --head, or --neighbours"),
    ],
)
def test_mistakes_are_one_line(evaluate: Any, arguments: tuple[str, ...], words: str) -> None:
    ran = evaluate(*arguments)
    assert ran.status == 2
    assert words in ran.err
    assert len(ran.err.strip().splitlines()) == 1
