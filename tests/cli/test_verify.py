"""`cxr-embed verify` as a user meets it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from archive_files import write_archive
from builders import make_dicom
from written import mimic_path, values, write_output

from cxr_embed.cli import verify

ROWS = 30


@pytest.fixture(name="output")
def _output(tmp_path: Path) -> Path:
    write_output(tmp_path / "out", [mimic_path(n) for n in range(ROWS)], values(ROWS))
    return tmp_path / "out"


@pytest.fixture(name="look")
def _look(do: Any) -> Any:
    return functools.partial(do, "verify")


def test_nothing_wrong(look: Any, output: Path) -> None:
    ran = look(input_path=output)
    assert (ran.status, ran.err) == (0, "")
    assert "embeddings  30, " in ran.out
    assert "problems    0" in ran.out


def test_one_line_for_each_bad_one_and_exit_1(look: Any, output: Path) -> None:
    bad = sorted(output.iterdir())[3:5]
    for path in bad:
        path.write_bytes(path.read_bytes()[:-1])
    ran = look(input_path=output, verbosity=-1)
    assert ran.status == 1
    assert [line.split(":")[0] for line in ran.out.splitlines()] == [
        f"torn {path.name}" for path in bad
    ]
    ran = look(input_path=output)
    assert "problems    2\n  2 torn: cut short" in ran.out
    ran = look("--repair", input_path=output)
    assert ran.status == 1
    assert "removed     2" in ran.out
    assert look(input_path=output).status == 0


def test_inputs_may_be_in_archives_among_others(look: Any, tmp_path: Path) -> None:
    images, output = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    (images / "a.dcm").write_bytes(make_dicom())
    write_archive(images / "b.tgz", {"b.dcm": make_dicom(), "c.dcm": make_dicom()})
    write_output(output, [f"{images}/a.dcm", f"{images}/b.tgz!/b.dcm"], values(2))
    ran = look(input_path=output, inputs=images, search_archives=True)
    assert ran.out.splitlines()[0] == f"missing {images}/b.tgz!/c.dcm"
    assert "problems    1" in ran.out
    assert "unexpected b.tfrecord" in look(input_path=output, inputs=images).out
    ran = look(input_path=output, search_archives=True)
    assert (ran.status, ran.err) == (2, "cxr-embed: --search_archives needs --inputs\n")


def test_many_notes_are_cut_short(look: Any, output: Path) -> None:
    write_output(output, [f"again/{number}.png" for number in range(ROWS)], values(ROWS))
    ran = look(input_path=output)
    assert ran.status == 0
    assert ran.out.count("note same_embedding ") == 5
    assert "note same_embedding: 25 more" in ran.out


def test_a_path_is_always_one_line(look: Any, output: Path) -> None:
    (output / "new\nline.tfrecord").write_bytes(b"x")
    ran = look(input_path=output, verbosity=-1)
    assert ran.out.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({}, "--input_path is missing"),
        ({"input_path": "nowhere"}, "no embeddings in nowhere"),
        ({"input_path": "out", "inputs": "nowhere"}, "nowhere does not exist"),
        ({"input_path": "out", "inputs": "no.txt"}, "no.txt cannot be read"),
        ({"input_path": "out", "repiar": True}, "did you mean --repair?"),
    ],
)
def test_mistakes_are_one_line(
    look: Any, output: Path, flags: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(output.parent)
    ran = look(**flags)
    assert (ran.status, ran.out) == (2, "")
    assert line in ran.err
    assert ran.err.count("\n") == 1


def test_help_lists_every_flag(look: Any) -> None:
    ran = look("--help")
    assert ran.status == 0
    for name in verify.make_flags():
        assert f"--{name}" in ran.out
