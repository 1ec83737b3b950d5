"""`cxr-embed benchmark`: what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders import make_dicom

from cxr_embed.cli import main
from cxr_embed.cli.benchmark import duration


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(make_dicom())
    return folder


def test_it_estimates_and_says_what_to_change(
    images: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main.main(
        ["benchmark", f"--input_path={images}", f"--model_path={tiny_model}", "--seconds=0.2"]
    )
    out = capsys.readouterr().out
    assert status == 0
    for part in ("reading", "model", "writing"):
        assert re.search(rf"^{part} +\S+ images/s \(\S+ ms each\)", out, re.MULTILINE)
    assert re.search(r"^estimate +your 3 images take about 1 s", out, re.MULTILINE)
    assert re.search(r"^change first +(reading|model|writing), \d+ %", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "pass one of --input_path and --input_list"),
        (["--input_path=/nowhere"], "/nowhere"),
        (["--input_path=.", "--overwrite"], "unknown flag --overwrite"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["benchmark", *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "1 s"), (75, "75 s"), (600, "10 min"), (5400, "1 h 30 min"),
        (12 * 3600 + 60, "12 h 1 min"), (400_000, "4.6 days"),
    ],
)  # fmt: skip
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
