"""What runs have left behind is read as it stands, damaged parts left aside."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from faulty_output import Output

from cxr_embed.runs import history as run_history


@pytest.fixture
def copied(output: Output, tmp_path: Path) -> str:
    shutil.copytree(output.records, tmp_path / "out")
    return str(tmp_path / "out")


def test_runs_and_ends(output: Output) -> None:
    path = str(output.records)
    runs = run_history.read_runs(path)
    assert len(runs) == 1
    assert runs[0].count("embedded") == 21
    assert runs[0].started is not None
    ends = run_history.read_ends(runs)
    assert (ends.count("embedded"), ends.count("failed"), ends.count("skipped")) == (21, 1, 1)
    assert ends.reasons("failed") == [("truncated", 1)]
    assert ends.by_path[f"{output.images}/faults/torn.dcm"].dicom_id == "torn"
    assert ends.sizes()[160, 140] == 20
    assert ends.warnings() == [("not_frontal", 1)]


def test_a_later_run_decides(copied: str) -> None:
    first = next(Path(copied, "_runs").iterdir())
    later = first.with_name("99990101T000000Z-aaaaaa")
    later.mkdir()
    path = (first / "failures.csv").read_text().splitlines()[1].split(",")[1]
    (later / "embedded.csv").write_text(
        f"dicom_id,path,record,rows,columns,warnings\ntorn,{path},torn.tfrecord,5,6,a b\ncut,"
    )
    runs = run_history.read_runs(copied)
    ends = run_history.read_ends(runs)
    assert ends.count("failed") == 0
    assert ends.sizes()[5, 6] == 1
    assert ends.damaged_tables == 2  # the later run has just one of three
    assert (runs[1].manifest, runs[1].count("embedded"), runs[1].started) == ({}, None, None)


def test_a_damaged_manifest_is_none(copied: str) -> None:
    manifest = next(Path(copied, "_runs").iterdir()) / "manifest.json"
    manifest.write_text("[")
    assert run_history.read_runs(copied)[0].manifest == {}
    manifest.write_text('{"counts": 3, "started": "yesterday", "fingerprint": null}')
    run = run_history.read_runs(copied)[0]
    assert (run.count("found"), run.started, run.fingerprint) == (None, None, {})


def test_pace_by_the_records_times(output: Output, tmp_path: Path) -> None:
    runs = run_history.read_runs(str(output.records))
    times = run_history.record_times(str(output.records))
    assert len(times) == 21
    (pace,) = run_history.paces(runs, times)
    assert pace.counts.sum() == 21
    assert pace.edges[0] == 0
    assert run_history.paces(runs, times + 5000) == []  # copied
    assert run_history.paces(runs, np.empty(0)) == []


def test_no_output_at_all(tmp_path: Path) -> None:
    assert run_history.read_runs(str(tmp_path / "no")) == []
    assert len(run_history.record_times("gs://bucket/out")) == 0


def test_numbers_of_a_manifest_that_another_program_wrote(copied: str) -> None:
    manifest = next(Path(copied, "_runs").iterdir()) / "manifest.json"
    manifest.write_text('{"counts": {"failed": {"a": 2, "b": "x", "c": 3}, "found": NaN}}')
    run = run_history.read_runs(copied)[0]
    assert (run.count("failed"), run.count("found"), run.number("seconds", "wall")) == (
        5,
        None,
        None,
    )
