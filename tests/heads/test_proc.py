"""DeLong's test equals R's pROC: stored numbers everywhere, and R itself where it is installed."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cxr_embed.heads.delong import auroc_covariance, delong_test

FOLDER = Path(__file__).parent / "proc"
CASES = ("few", "nearly separated", "plain", "rare", "ties", "worse than chance")


def rows_of(text: str) -> dict[str, dict[str, float]]:
    rows = csv.DictReader(io.StringIO(text))
    return {row.pop("case"): {name: float(cell) for name, cell in row.items()} for row in rows}


@pytest.mark.parametrize("case", CASES)
def test_it_equals_proc(case: str) -> None:
    with (FOLDER / "cases.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["case"] == case]
    labels, first, second = (
        np.array([float(row[name]) for row in rows]) for name in ("label", "first", "second")
    )
    aurocs, covariance = auroc_covariance(labels, np.stack([first, second]))
    test = delong_test(labels, first, second)
    found = {
        "first": aurocs[0], "second": aurocs[1], "variance_first": covariance[0, 0],
        "variance_second": covariance[1, 1], "covariance": covariance[0, 1],
        "z": test.z, "p": test.p, "low": test.low, "high": test.high,
    }  # fmt: skip
    assert found == pytest.approx(rows_of((FOLDER / "expected.csv").read_text())[case], rel=1e-9)


def test_the_stored_numbers_are_what_r_gives() -> None:
    script = shutil.which("Rscript")
    if script is None or not _has_proc(script):
        pytest.skip("R with pROC is not here: apt-get install r-base-core r-cran-proc")
    command = [script, "--vanilla", str(FOLDER / "delong.R"), str(FOLDER / "cases.csv")]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    expected = rows_of((FOLDER / "expected.csv").read_text())
    assert {case: pytest.approx(row, rel=1e-9) for case, row in expected.items()} == rows_of(made)


def _has_proc(script: str) -> bool:
    command = [script, "-e", "library(pROC)"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
