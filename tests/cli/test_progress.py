"""Progress: one bar on a terminal, one kind of line elsewhere, for every verb."""

from __future__ import annotations

import re
import sys
import time

import pytest
import terminal

from cxr_embed.cli import progress
from cxr_embed.runs.progress import Progress

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

COUNTS = """
import time
from cxr_embed.cli.progress import counting, tracking, watching
from cxr_embed.runs.progress import Progress
"""


def on_a_terminal(code: str, columns: int = 140) -> list[str]:
    """Returns each line of the display of a child process that runs `code`."""
    _, shown = terminal.run([sys.executable, "-c", COUNTS + code], columns)
    lines = re.split(r"[\r\n]+", ANSI.sub("", shown))
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("code", "first"),
    [
        (
            "with counting('packing', 'files') as start:\n"
            "    advance = start(8)\n"
            "    for _ in range(8): time.sleep(0.3); advance(1)",
            "packing",
        ),
        ("for _ in tracking('looking', 'files', 8, range(8)): time.sleep(0.3)", "looking"),
        (
            "run = Progress()\n"
            "with watching('embedding', 'files')(run, 8):\n"
            "    for n in range(9): run.set_counts({'embedded': n}); time.sleep(0.3)",
            "embedding",
        ),
    ],
    ids=["counting", "tracking", "watching"],
)
def test_a_bar_says_what_its_times_are(code: str, first: str) -> None:
    shown = on_a_terminal(code)
    assert any(re.search(r"[1-7]/8 .*files/s elapsed 0:00:0\d, left 0:00:0\d$", s) for s in shown)
    assert re.fullmatch(rf"{first} .* 8/8 \d\.\d files/s elapsed 0:00:0\d", shown[-1])


def test_a_bar_counts_failures_and_stops_where_a_run_was_interrupted() -> None:
    shown = on_a_terminal(
        "run = Progress()\n"
        "with watching('embedding', 'images')(run, 9):\n"
        "    for n in range(4): run.set_counts({'embedded': n, 'failures': n}); time.sleep(0.4)"
    )
    assert re.search(r"6/9 .*elapsed 0:00:0\d 3 failed$", shown[-1])


def test_a_bar_is_one_line_in_a_terminal_of_80_columns() -> None:
    shown = on_a_terminal(
        "run = Progress()\n"
        "with watching('embedding', 'images')(run, 54321):\n"
        "    for n in range(4): run.set_counts({'embedded': n, 'failures': 90}); time.sleep(0.4)",
        columns=80,
    )
    assert any(
        re.search(r"/54321 .* elapsed 0:00:0\d, left \d+:\d\d:\d\d 90 failed$", s) for s in shown
    )
    assert all(line.startswith("embedding") for line in shown)


def test_elsewhere_there_is_a_line_with_failures_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    run = Progress()
    run.set_counts({"embedded": 3, "failures": 1})
    with progress.watching("embedding", "images")(run, 8):
        time.sleep(0.4)
        run.set_counts({"embedded": 7, "failures": 1})
    lines = capsys.readouterr().err.splitlines()
    form = r"embedding: 4 of 8 images, 1 failed, \d+\.\d images/s, \d s left"
    assert re.fullmatch(form, lines[0])
    assert re.fullmatch(r"embedding: 8 of 8 images, 1 failed, \d+\.\d images/s", lines[-1])


def test_lines_are_half_a_minute_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counting("packing", "files") as start:
        start(2)(2)
    assert capsys.readouterr().err == ""


def test_quiet_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    with progress.counting("packing", "files", quiet=True) as start:
        start(2)(2)
    assert capsys.readouterr().err == ""
