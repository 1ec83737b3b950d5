"""`cxr-embed pack` as a user meets it."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import terminal
from written import mimic_path, values, write_output

from cxr_embed.cli import pack, progress
from cxr_embed.embeddings.loading import load_embeddings

ROWS = 30


@pytest.fixture(name="output")
def _output(tmp_path: Path) -> Path:
    write_output(tmp_path / "out", [mimic_path(n) for n in range(ROWS)], values(ROWS))
    return tmp_path / "out"


@pytest.fixture(name="start")
def _start(do: Any) -> Any:
    return functools.partial(do, "pack")


def test_the_summary(start: Any, output: Path, tmp_path: Path) -> None:
    ran = start(input_path=output, output_path=tmp_path / "packed", dtype="float16", normalise=True)
    assert (ran.status, ran.err) == (0, "")
    assert "embeddings  30, 8 floats each (float16, scaled to length 1)" in ran.out
    assert "files       1 written, 0 already there" in ran.out
    again = start(
        input_path=output, output_path=tmp_path / "packed", dtype="float16", normalise=True
    )
    assert "files       0 written, 1 already there" in again.out
    assert again.err == "1 files exist already\n"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"output_path": "x"}, "--input_path is missing"),
        ({"input_path": "out"}, "--output_path is missing"),
        ({"input_path": "out", "output_path": "x", "format": "csv"}, "csv"),
        ({"input_path": "nowhere", "output_path": "x"}, "no embeddings in nowhere"),
        ({"input_path": "out", "output_path": "out/x"}, "is inside --input_path"),
        ({"input_path": "out", "output_path": "x", "formt": "npz"}, "did you mean --format?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_one_line_and_write_nothing(
    start: Any, output: Path, flags: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(output.parent)
    ran = start(**flags)
    assert (ran.status, ran.out) == (2, "")
    assert line in ran.err
    assert ran.err.count("\n") == 1
    assert {path.name for path in output.parent.iterdir()} == {"out"}


def test_help_lists_every_flag(start: Any) -> None:
    ran = start("--help")
    assert ran.status == 0
    for name in pack.make_flags():
        assert f"--{name}" in ran.out


def test_a_damaged_record_is_one_line(start: Any, output: Path, tmp_path: Path) -> None:
    path = next(output.iterdir())
    path.write_bytes(b"x")
    ran = start(input_path=output, output_path=tmp_path / "packed")
    assert ran.status == 2
    assert path.name in ran.err
    assert ran.err.count("\n") == 1


def test_without_a_terminal_there_is_a_line_now_and_then(
    start: Any, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    ran = start(input_path=output, output_path=tmp_path / "packed")
    assert ran.err.startswith("packing: 30 of 30 embeddings, ")


def test_a_terminal_gets_a_bar(output: Path, tmp_path: Path) -> None:
    printed, shown = terminal.run(
        [sys.executable, "-c", "from cxr_embed.cli.main import run; run()", "pack",
         f"--input_path={output}", f"--output_path={tmp_path / 'packed'}"]
    )  # fmt: skip
    assert b"30, 8 floats each" in printed
    assert "packing" in shown
    assert "30/30" in shown


def test_a_killed_pack_leaves_nothing_that_looks_whole(tmp_path: Path, start: Any) -> None:
    paths = [f"{number:06d}.dcm" for number in range(3000)]
    write_output(tmp_path / "out", paths, values(3000, 512))
    packed = tmp_path / "packed"
    code = (
        "import sys; from cxr_embed.datasets import pack; pack._SHARD_BYTES = 1024 * 4 * 512; "
        "from cxr_embed.cli.main import run; run()"
    )
    command = [sys.executable, "-c", code, "pack", f"--input_path={tmp_path / 'out'}"]
    with subprocess.Popen([*command, f"--output_path={packed}"], stdout=subprocess.DEVNULL) as one:
        deadline = time.monotonic() + 300
        while not list(packed.glob("data/*.parquet")) and one.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        one.send_signal(signal.SIGKILL)
        one.wait()
    assert not (packed / "SHA256SUMS.txt").exists()
    subprocess.run([*command, f"--output_path={packed}"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [*command, f"--output_path={tmp_path / 'undisturbed'}"], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for path in (tmp_path / "undisturbed").rglob("*"):
        if path.is_file():
            assert (packed / path.relative_to(tmp_path / "undisturbed")).read_bytes() == (
                path.read_bytes()
            )
    assert not list(packed.rglob("*.tmp"))
    assert load_embeddings(packed).image_ids == paths
