"""Words, progress and summary for the person (or the log) that watches a run."""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from absl import logging as absl_logging

from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS
from cxr_embed.runs.execute import Result
from cxr_embed.runs.progress import Progress as RunProgress

_LOG_EVERY_SECONDS = 30.0
_REFRESH_SECONDS = 0.25


def set_up_logging(verbosity: int) -> None:
    """Sets what is logged on stderr.

    Args:
        verbosity: absl's. From 1 on, the package's own debugging messages are logged, such as the
            traceback of an unexpected error on an image.
    """
    _show_debugging(verbosity >= 1)
    # TensorFlow logs through absl, and at its default level it is not for people.
    absl_logging.set_verbosity(verbosity or absl_logging.WARNING)
    if verbosity < 1:
        for name in ("pydicom", "tensorflow", "root"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # Beam logs the traceback of whatever ends a run, which is then one line at the end.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        # pydicom's warnings quote what is in a file: it may be a patient's.
        warnings.filterwarnings("ignore")


def _show_debugging(is_shown: bool) -> None:
    logger = logging.getLogger("cxr_embed")
    for handler in [h for h in logger.handlers if isinstance(h, _DebuggingHandler)]:
        logger.removeHandler(handler)
    logger.setLevel(logging.DEBUG if is_shown else logging.NOTSET)
    logger.propagate = not is_shown
    if is_shown:
        logger.addHandler(_DebuggingHandler())


class _DebuggingHandler(logging.StreamHandler):
    """Logs debugging messages on stderr."""


class Speaker:
    """Says one line at a time on stderr."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def __call__(self, line: str) -> None:
        """Says a line; when quiet, only a warning."""
        if not self.quiet or line.startswith("warning"):
            print(line, file=sys.stderr, flush=True)


def progress_of(
    speaker: Speaker,
) -> Callable[[RunProgress, int], AbstractContextManager[None]]:
    """Returns how to show progress: a bar on a terminal, a line now and then elsewhere."""

    @contextmanager
    def watch(run: RunProgress, total: int) -> Iterator[None]:
        finished = threading.Event()
        show = _show_bar if sys.stderr.isatty() else _log_lines
        thread = threading.Thread(target=show, args=(run, total, finished), daemon=True)
        if not speaker.quiet:
            thread.start()
        try:
            yield
        finally:
            finished.set()
            if thread.is_alive():
                thread.join()

    return watch


def _show_bar(run: RunProgress, total: int, finished: threading.Event) -> None:
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
        TextColumn("embedding"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )  # fmt: skip
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, rate="", failed="")
        while True:
            counts = run.counts()
            done = sum(counts.values())
            rate = done / max(time.monotonic() - started, 1e-9)
            failed = counts.get("failures", 0)
            progress.update(
                task, completed=done, rate=f"{rate:.1f} images/s",
                failed=f"[red]{failed} failed" if failed else "",
            )  # fmt: skip
            if finished.wait(_REFRESH_SECONDS) and done == sum(run.counts().values()):
                return


def _log_lines(run: RunProgress, total: int, finished: threading.Event) -> None:
    started = time.monotonic()
    while not finished.wait(_LOG_EVERY_SECONDS):
        counts = run.counts()
        done = sum(counts.values())
        rate = done / (time.monotonic() - started)
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        print(
            f"{done} of {total} images, {counts.get('failed', 0)} failed, "
            f"{rate:.1f} images/s{left}",
            file=sys.stderr,
            flush=True,
        )


def print_summary(result: Result) -> None:
    """Prints what came of a run."""
    counts = result.counts
    if result.handed_over:
        print(f"handed over    to {result.handed_over}")
        print(f"already there  {counts['already_there']}")
        print(f"tables         {result.folder}, once it has run")
        return
    print(f"embedded       {counts['embedded']}")
    print(f"already there  {counts['already_there']}")
    _print_reasons("skipped", result.skipped, SKIP_REASONS)
    _print_reasons("failed", result.failed, {k: v.meaning for k, v in FAILURE_REASONS.items()})
    if counts["not_attempted"]:
        print(f"not attempted  {counts['not_attempted']}")
    print(f"speed          {result.images_per_second:.2f} images/s over {result.seconds:.1f} s")
    print(f"records        {result.folder.rpartition('/_runs/')[0]}")
    print(f"tables         {result.folder}")
    if result.failed:
        print(f"failure table  {result.folder}/failures.csv")


def _print_reasons(title: str, reasons: dict[str, int], meanings: dict[str, str]) -> None:
    print(f"{title:<14} {sum(reasons.values())}")
    for reason, count in reasons.items():
        print(f"  {count} {reason}: {meanings[reason]}")
