"""Progress of verbs that count: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOG_EVERY_SECONDS = 30.0


@contextmanager
def counting(title: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int], Any]]:
    """Shows how far something has come.

    Args:
        title: what is done, such as `packing`.
        unit: what is counted, such as `embeddings`.
        quiet: show nothing.

    Yields:
        What to call once with the total; it returns what to call with each number done, from any
        one thread at a time.
    """
    if quiet:
        yield lambda total: lambda done: None
    elif sys.stderr.isatty():
        with _bar(title, unit) as start:
            yield start
    else:
        yield lambda total: _Lines(title, unit, total).advance


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Callable[[int], Any]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def start(total: int) -> Callable[[int], None]:
            task = progress.add_task("", total=total, rate="")
            began = time.monotonic()

            def advance(done: int) -> None:
                progress.advance(task, done)
                rate = progress.tasks[task].completed / max(time.monotonic() - began, 1e-9)
                progress.update(task, rate=f"{rate:,.0f} {unit}/s")

            return advance

        yield start


class _Lines:
    """A line on stderr every half a minute."""

    def __init__(self, title: str, unit: str, total: int) -> None:
        self._title, self._unit, self._total = title, unit, total
        self._done = 0
        self._began = self._said = time.monotonic()

    def advance(self, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if now - self._said < LOG_EVERY_SECONDS:
            return
        self._said = now
        rate = self._done / (now - self._began)
        left = (self._total - self._done) / rate
        print(
            f"{self._title}: {self._done} of {self._total} {self._unit}, "
            f"{rate:,.0f} {self._unit}/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
