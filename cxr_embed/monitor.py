"""Counts of a run while it goes on, shared by its threads; also how a run is asked to stop.

Workers on other machines have a monitor of their own that nobody watches.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from cxr_embed.outcomes import Embedded, Outcome, Skipped


class RunMonitor:
    """Thread-safe counts of outcomes.

    Args:
        max_failures: ask to stop once more images than this have failed; 0 is never.
    """

    def __init__(self, max_failures: int = 0) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._max_failures = max_failures
        self._stop = threading.Event()
        self._first: float | None = None

    @property
    def first(self) -> float | None:
        """When the first image ended, as `time.perf_counter` counts; None before that."""
        return self._first

    def record(self, outcome: Outcome) -> None:
        """Counts one image."""
        with self._lock:
            if self._first is None:
                self._first = time.perf_counter()
            self._counts[kind_of(outcome)] += 1
            if 0 < self._max_failures < self._counts["failed"]:
                self._stop.set()

    def set_counts(self, counts: dict[str, int]) -> None:
        """Takes over what somebody else has counted."""
        with self._lock:
            self._counts = Counter(counts)

    def counts(self) -> dict[str, int]:
        """Returns counts so far by `embedded`, `skipped` and `failed`."""
        with self._lock:
            return dict(self._counts)

    def ask_to_stop(self) -> None:
        """Lets the images in flight finish and starts no more."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether no more images should be started."""
        return self._stop.is_set()


def kind_of(outcome: Outcome) -> str:
    """Returns `embedded`, `skipped` or `failed`."""
    if isinstance(outcome, Embedded):
        return "embedded"
    return "skipped" if isinstance(outcome, Skipped) else "failed"


_monitors: dict[str, RunMonitor] = {}
_monitors_lock = threading.Lock()


def monitor_of(run_id: str, max_failures: int = 0) -> RunMonitor:
    """Returns this process's monitor of a run, making it at the first call."""
    with _monitors_lock:
        return _monitors.setdefault(run_id, RunMonitor(max_failures))
