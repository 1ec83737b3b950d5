"""Counts the outcomes of a running run and stops it; shared by the threads of a process."""

from __future__ import annotations

import threading
import time
from collections import Counter

from cxr_embed.outcomes import Failed, Outcome
from cxr_embed.runs.tables import table_of


class RunStopped(Exception):
    """Ends a run early and on purpose: an interruption, or too many failures."""


class Progress:
    """Thread-safe counts of records by table: `embedded`, `skipped` and `failures`.

    Args:
        max_failures: the run stops when more images than this have failed; 0 is no limit.
    """

    def __init__(self, max_failures: int = 0) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failed = 0
        self._max_failures = max_failures
        self._first: float | None = None
        self._stop = threading.Event()

    @property
    def first(self) -> float | None:
        """Time of the first outcome, by `time.perf_counter`; None before that."""
        return self._first

    def add(self, outcome: Outcome, records: int = 1) -> None:
        """Counts one outcome.

        Args:
            outcome: the outcome.
            records: number of records that it decides on: of several outputs, one for each.
        """
        with self._lock:
            if self._first is None:
                self._first = time.perf_counter()
            self._counts[table_of(outcome)] += records
            self._failed += isinstance(outcome, Failed)

    def set_counts(self, counts: dict[str, int]) -> None:
        """Replaces the counts by those of a remote job."""
        with self._lock:
            self._counts = Counter(counts)
            self._failed = counts.get("failures", 0)

    def counts(self) -> dict[str, int]:
        """Returns the counts so far."""
        with self._lock:
            return dict(self._counts)

    def interrupt(self) -> None:
        """Stops the run at the next outcome."""
        self._stop.set()

    @property
    def is_interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._stop.is_set()

    @property
    def has_too_many_failures(self) -> bool:
        """Whether more images have failed than `max_failures` allows."""
        return 0 < self._max_failures < self._failed


_runs: dict[str, Progress] = {}
_lock = threading.Lock()


def progress_of(run_id: str, max_failures: int = 0) -> Progress:
    """Returns this process's counts of a run; the first call creates them."""
    with _lock:
        return _runs.setdefault(run_id, Progress(max_failures))
