"""Runs the main job as a user would, in this process or in one of its own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cxr_embed.cli import main


class Ran:
    """An ended run: its exit status and what it printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def arguments_of(**flags: Any) -> list[str]:
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in flags.items()
        if value is not None
    ]


def do_here(capsys: pytest.CaptureFixture[str], *arguments: object, **flags: Any) -> Ran:
    """Runs `cxr-embed` with these arguments and flags."""
    capsys.readouterr()
    status = main.main([*map(str, arguments), *arguments_of(**flags)])
    captured = capsys.readouterr()
    return Ran(status, captured.out, captured.err)


def run_here(capsys: pytest.CaptureFixture[str], *extra: str, **flags: Any) -> Ran:
    return do_here(capsys, "run", *arguments_of(**flags), *extra)


def command(*extra: str, **flags: Any) -> list[str]:
    return [sys.executable, "-m", "run_inference", *arguments_of(**flags), *extra]


def run_apart(*extra: str, cwd: Path | None = None, **flags: Any) -> Ran:
    done = subprocess.run(
        command(*extra, **flags), capture_output=True, text=True, cwd=cwd, check=False,
        env=os.environ | {"COLUMNS": "200"}, timeout=570,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def records(output: Path) -> dict[str, bytes]:
    """Returns every record's bytes by its path below the output."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.tfrecord")}


def all_files(output: Path) -> set[str]:
    """Returns every file outside `_runs`, hidden ones included."""
    return {
        str(path.relative_to(output))
        for path in output.rglob("*")
        if path.is_file() and "_runs" not in path.parts
    }


def last_run(output: Path) -> Path:
    return max((output / "_runs").iterdir())


def table(output: Path, name: str) -> list[dict[str, str]]:
    with (last_run(output) / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def manifest(output: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((last_run(output) / "manifest.json").read_text())
    return loaded
