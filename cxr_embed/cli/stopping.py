"""Lets Ctrl-C and SIGTERM end work in an orderly way; a second signal kills."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr_embed.runs.plan import RunPlan


@contextmanager
def run_interruptible(plan: RunPlan) -> Iterator[None]:
    """Lets the signals end a local run after the next image. A remote job does not receive them."""
    from cxr_embed.runs.progress import progress_of

    if not plan.job.is_local:
        yield
        return
    progress = progress_of(plan.run_id, plan.job.max_failures)
    with _handled(
        lambda: progress.is_interrupted,
        progress.interrupt,
        "stopping after the image in the model; once more to kill",
    ):
        yield


@contextmanager
def wait_interruptible() -> Iterator[threading.Event]:
    """Yields an event that the signals set."""
    stop = threading.Event()
    with _handled(stop.is_set, stop.set, "stopping; once more to kill"):
        yield stop


@contextmanager
def _handled(
    was_stopped: Callable[[], bool], stop: Callable[[], None], message: str
) -> Iterator[None]:
    def handle(number: int, _frame: Any) -> None:
        if was_stopped():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop()
        print(f"\n{message}", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
