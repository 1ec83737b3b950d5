"""`cxr-embed inspect` as a user meets it."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, lut_item, make_dicom
from PIL import Image

from cxr_embed.cli import inspect
from cxr_embed.cli import main as cli_main

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def look(do: Any) -> Any:
    return functools.partial(do, "inspect")


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    path = tmp_path / "image.dcm"
    path.write_bytes(
        make_dicom(
            PhotometricInterpretation="MONOCHROME1", VOILUTSequence=[lut_item(0, [9, 700], 12)],
            WindowCenter=9000, WindowWidth=8000, PatientName="Geheim^Ganz",
        )
    )  # fmt: skip
    return path


def test_the_words(look: Any, radiograph: Path) -> None:
    ran = look(radiograph)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"{radiograph}: DICOM, {radiograph.stat().st_size:,} bytes"
    assert "  Window Center                (0028,1050)  9000" in lines
    assert "Rendering cxr_foundation" in lines
    assert "  2. window 9000 / 8000, LINEAR, 5000..12999 onto 0..65535" in lines
    assert any(line.startswith("  warning voi_lut_ignored: a VOI LUT Sequence") for line in lines)
    assert "Rendering dicom" in lines
    assert "  2. VOI LUT, 2 entries of 12 bits, the first for 0, onto 0..65535" in lines
    assert "--output_path FILE.png draws it" in lines
    assert "Geheim" not in ran.out
    assert max(len(line) for line in lines if str(radiograph) not in line) <= 110


def test_both_ways_to_name_the_file(look: Any, radiograph: Path) -> None:
    assert look(f"--input_path={radiograph}").out == look(radiograph).out


def test_one_rendering(look: Any, radiograph: Path) -> None:
    out = look(radiograph, "--rendering=dicom").out
    assert "Rendering dicom" in out
    assert "cxr_foundation" not in out


def test_patient_tags_on_demand(look: Any, radiograph: Path) -> None:
    assert "(0010,0010)  Geheim^Ganz" in look(radiograph, "--show_patient_tags").out


def test_the_picture(look: Any, radiograph: Path, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "look.png"
    ran = look(radiograph, "--output_path", target)
    assert ran.status == 0
    assert f"{target} shows it" in ran.out
    with Image.open(target) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width > 2 * 380


def test_the_picture_is_as_high_as_asked(look: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(make_dicom(np.tile(GRADIENT, (14, 14))))
    heights = []
    for size in (300, 600):
        look(path, f"--output_path={tmp_path}/{size}.png", f"--size={size}")
        with Image.open(tmp_path / f"{size}.png") as sheet:
            heights.append(sheet.height)
    assert heights[1] - heights[0] == 300


def test_a_terminal_gets_a_preview(
    look: Any, radiograph: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "80",
                        "LINES": "30"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ran = look(radiograph)
    blocks = [line for line in ANSI.sub("", ran.out).splitlines() if line.startswith("▀")]
    assert 10 < len(blocks) <= 26
    assert {len(line) for line in blocks} == {80}
    assert "\x1b[38;2;" in ran.out
    assert "Rendering cxr_foundation                Rendering dicom" in ran.out
    assert "▀" not in look(radiograph, f"--output_path={tmp_path}/x.png").out


def test_a_rejected_file_tells_all_and_ends_with_1(look: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.dcm"
    path.write_bytes(make_dicom(WindowCenter=9, WindowWidth=0))
    ran = look(path, "--output_path", tmp_path / "broken.png")
    assert ran.status == 1
    assert "rejected, stage render: bad_window" in ran.out
    assert "a window whose centre or width cannot be used" in ran.out
    assert "Window Width (0028,1051) 0: must be at least 1 for LINEAR (C.11.2.1.2)" in ran.out
    assert (tmp_path / "broken.png").stat().st_size > 1000


def test_one_of_two_renderings_rejected(look: Any, tmp_path: Path) -> None:
    path = tmp_path / "lut.dcm"
    path.write_bytes(make_dicom(VOILUTSequence=[lut_item(0, [5], 12)]))
    assert look(path).status == 1
    assert look(path, "--rendering=cxr_foundation").status == 0


def test_what_the_model_sees(
    look: Any, radiograph: Path, small_model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "look.png"
    ran = look(radiograph, f"--model_path={small_model}", f"--output_path={target}")
    assert ran.status == 0
    assert "Into the model, from cxr_foundation\n  64 x 64 x 3 float32, " in ran.out
    with Image.open(target) as sheet:
        assert sheet.width > 4 * 380


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "pass one file: cxr-embed inspect FILE"),
        (["{file}", "{file}"], "pass one file"),
        (["{file}", "--input_path={file}"], "pass one file"),
        (["{folder}/none.dcm"], "none.dcm does not exist"),
        (["{folder}"], "is a folder: pass one file in it"),
        (["{file}", "--output_path=x.jpg"], "must end in .png"),
        (["{file}", "--output_path=/proc/none/x.png"], "/proc/none/x.png cannot be written"),
        (["{file}", "--sise=3"], "unknown flag --sise; did you mean --size?"),
        (["{file}", "--size=3"], "--size=3"),
        (["{file}", "--rendering=bone"], "both|cxr_foundation|dicom"),
        (["{file}", "--model_path={folder}"], "no saved_model.pb"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    look: Any, radiograph: Path, arguments: list[str], complaint: str
) -> None:
    ran = look(*(a.format(file=radiograph, folder=radiograph.parent) for a in arguments))
    assert ran.status == 2
    assert complaint in ran.err
    assert ran.err.count("\n") == 1


def test_the_input_is_never_overwritten(look: Any, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(GRADIENT).save(path)
    before = path.read_bytes()
    (tmp_path / "link.png").symlink_to(path)
    for target in (path, tmp_path / "link.png"):
        assert look(path, f"--output_path={target}").status == 2
    assert path.read_bytes() == before


def test_help(look: Any) -> None:
    ran = look("--help")
    assert ran.status == 0
    for name in inspect.make_flags():
        if name != "flagfile":
            assert f"--{name}" in ran.out


def test_it_is_among_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    cli_main.main([])
    assert "inspect" in capsys.readouterr().out
