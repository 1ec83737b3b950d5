"""Progress of every verb that counts: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cxr_embed.runs.progress import Progress as RunCounts

LOG_EVERY_SECONDS = 30.0
_REFRESH_SECONDS = 0.25

Item = TypeVar("Item")


class _View(Protocol):
    """How far something has come, as a person sees it."""

    def show(self, done: int, failed: int = 0) -> None:
        """Shows how many are done, the failed ones included; from one thread at a time."""


@contextmanager
def counting(title: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int], Any]]:
    """Shows the progress of work that reports what it has done.

    Args:
        title: what is done, such as `packing`.
        unit: what is counted, such as `embeddings`.
        quiet: show nothing.

    Yields:
        What to call once with the total; it returns what to call with each number done, from any
        one thread at a time.
    """
    with _views(title, unit, quiet) as view_of:

        def start(total: int) -> Callable[[int], None]:
            view, done = view_of(total), 0

            def advance(number: int) -> None:
                nonlocal done
                done += number
                view.show(done)

            return advance

        yield start


def tracking(title: str, unit: str, total: int, items: Iterable[Item]) -> Iterator[Item]:
    """Hands items on and shows how many have been used.

    Args:
        title: what is done.
        unit: what is counted.
        total: how many items there are.
        items: the items.
    """
    with counting(title, unit) as start:
        advance = start(total)
        for item in items:
            yield item
            advance(1)


def watching(
    title: str, unit: str, *, quiet: bool = False, transient: bool = False
) -> Callable[[RunCounts, int], AbstractContextManager[None]]:
    """Returns how to show the progress of a run, whose counts are read while it goes on.

    Args:
        title: what is done.
        unit: what is counted.
        quiet: show nothing.
        transient: remove the bar at the end.
    """

    @contextmanager
    def watch(run: RunCounts, total: int) -> Iterator[None]:
        with _views(title, unit, quiet, transient) as view_of:
            view, finished = view_of(total), threading.Event()

            def show() -> None:
                counts = run.counts()
                view.show(sum(counts.values()), counts.get("failures", 0))

            def follow() -> None:
                while not finished.wait(_REFRESH_SECONDS):
                    show()

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            try:
                yield
            finally:
                finished.set()
                thread.join()
                show()

    return watch


@contextmanager
def _views(
    title: str, unit: str, quiet: bool, transient: bool = False
) -> Iterator[Callable[[int], _View]]:
    """Yields what makes the view of a total."""
    if quiet:
        yield lambda total: _Nothing()
        return
    if not sys.stderr.isatty():
        yield lambda total: _Lines(title, unit, total)
        return
    shown: list[_Bar] = []
    with _bars(title, transient) as bars:

        def bar_of(total: int) -> _View:
            shown.append(_Bar(bars, unit, total))
            return shown[-1]

        try:
            yield bar_of
        finally:
            for bar in shown:
                bar.end()


class _Nothing:
    def show(self, done: int, failed: int = 0) -> None:
        """Shows nothing."""


class _Lines:
    """A line on stderr every half a minute."""

    def __init__(self, title: str, unit: str, total: int) -> None:
        self._title, self._unit, self._total = title, unit, total
        self._began = self._logged = time.monotonic()

    def show(self, done: int, failed: int = 0) -> None:
        now = time.monotonic()
        if now - self._logged < LOG_EVERY_SECONDS:
            return
        self._logged = now
        rate = done / max(now - self._began, 1e-9)
        parts = [f"{self._title}: {done} of {self._total} {self._unit}"]
        if failed:
            parts.append(f"{failed} failed")
        parts.append(_speed(rate, self._unit))
        if rate and done < self._total:
            parts.append(f"{(self._total - done) / rate:.0f} s left")
        print(", ".join(parts), file=sys.stderr, flush=True)


class _Bar:
    """A bar among those of one `rich` display."""

    def __init__(self, bars: Progress, unit: str, total: int) -> None:
        self._bars, self._unit = bars, unit
        self._task: TaskID = bars.add_task("", total=total, rate="", failed="", ended=not total)
        self._total, self._began = total, time.monotonic()

    def show(self, done: int, failed: int = 0) -> None:
        rate = done / max(time.monotonic() - self._began, 1e-9)
        self._bars.update(
            self._task, completed=done, rate=_speed(rate, self._unit),
            failed=f"[red]{failed} failed" if failed else "", ended=done >= self._total,
        )  # fmt: skip

    def end(self) -> None:
        """Shows that nothing more will come, finished or not."""
        self._bars.stop_task(self._task)
        self._bars.update(self._task, ended=True)


@contextmanager
def _bars(title: str, transient: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Times(ProgressColumn):
        """`elapsed 0:00:03, left 0:00:09`; without the rest once nothing more will come."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            shown = f"elapsed {_clock(task.elapsed or 0)}"
            if not task.fields["ended"] and task.time_remaining is not None:
                shown += f", left {_clock(task.time_remaining)}"
            return Text(shown)

    # In a narrow terminal the bar gets shorter. Otherwise the times would break into a second line.
    columns = (
        TextColumn(title),
        BarColumn(bar_width=None, table_column=Column(max_width=40)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        Times(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=transient) as progress:
        yield progress


def _speed(rate: float, unit: str) -> str:
    return f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.1f} {unit}/s"


def _clock(seconds: float) -> str:
    """Returns seconds as `0:01:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
