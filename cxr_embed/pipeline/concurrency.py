"""A DoFn that works on several elements at a time, in threads, and yields results in order.

Beam calls `process` for one element after the other. `ThreadedDoFn` starts the work on an element
in a thread pool and returns; it yields the oldest result once enough elements are in flight. So
reading overlaps the model on every runner, the in-process one with its single thread included.
(xarray-beam's `threadmap` is the same idea.)

A Dataflow worker runs many bundles at a time, each on a thread and with DoFn instances of its own.
Memory must not grow with their number, so two things belong to the process and not to an instance:

- threads and places for elements in flight are shared by all instances of a step;
- no more than `BUNDLES_AT_A_TIME` bundles work. The others wait before their first element, and
  Beam is free to give what is in them to other workers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

NAMESPACE = "cxr_embed"

# While the last images of one bundle are in the model, the next bundle is already read.
BUNDLES_AT_A_TIME = 2

# Work on an element that takes less is done at once. Threads that compete for Python's one lock
# cost more than they bring then: tiny images are 1.3 times as fast this way.
WORTH_A_THREAD_SECONDS = 0.0025

_AVERAGED_OVER = 8


@dataclass(frozen=True)
class Threads:
    """Threads that the instances of one step share in a process.

    Attributes:
        name: of the step; steps with equal settings share threads.
        count: threads; with 0 the work is done in Beam's own thread, at once.
        in_flight: elements that may be in flight before the oldest result is waited for. Each
            working bundle may exceed it by one, so that all of them advance.
    """

    name: str
    count: int
    in_flight: int


class Result(NamedTuple):
    """What came of one element.

    Attributes:
        tag: the output it belongs to; None is the main one.
        value: the output element.
        counts: counters to increase, by name.
    """

    tag: str | None
    value: Any
    counts: dict[str, int]


class BundleTurn:
    """A DoFn's part in its bundle's turn: from `start_bundle` to `finish_bundle` or `teardown`.

    A bundle is known by the thread that Beam runs it on. It has its turn as long as one of its
    steps holds it, so the step that comes last decides: that is why the step after the model, which
    waits for the bundle's last batch, holds it too.
    """

    def __init__(self) -> None:
        self._thread: int | None = None

    def begin(self) -> None:
        """Waits for the bundle's turn, unless another step of it has taken it already."""
        self.end()  # of a bundle that failed
        self._thread = _turns.take()

    def end(self) -> None:
        """Gives the turn back, if this step holds it."""
        if self._thread is not None:
            _turns.give_back(self._thread)
            self._thread = None


class ThreadedDoFn(beam.DoFn):
    """Applies `work` to each element in a thread, and yields the results in order.

    Subclasses define `threads` and `work`. Windows and timestamps are those of the input element.
    What a bundle has begun ends with it: results are yielded in `finish_bundle`, or cancelled in
    `teardown` where the bundle has failed.
    """

    def threads(self) -> Threads:
        """Returns what to share with other instances of the step in this process."""
        raise NotImplementedError

    def work(self, element: Any) -> Result:
        """Returns what comes of one element; called in any thread.

        An exception fails the bundle.
        """
        raise NotImplementedError

    def setup(self) -> None:
        self._threads = self.threads()
        self._shared = _acquire(self._threads)
        self._in_flight: deque[tuple[Future[Result], Any, Any]] = deque()
        self._turn = BundleTurn()
        self._counts: Counter[str] = Counter()

    def start_bundle(self) -> None:
        self._turn.begin()

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        self._in_flight.append((self._shared.start(self.work, element), timestamp, window))
        # A failed element is noticed before any later one costs more work.
        while self._in_flight and (self._shared.is_full() or self._has_failed()):
            yield self._oldest()

    def finish_bundle(self) -> Iterator[Any]:
        while self._in_flight:
            yield self._oldest()
        for name, number in self._counts.items():
            Metrics.counter(NAMESPACE, name).inc(number)
        self._counts.clear()
        self._turn.end()

    def teardown(self) -> None:
        for future, _, _ in self._in_flight:
            future.cancel()
        wait([future for future, _, _ in self._in_flight])
        self._shared.ended(len(self._in_flight))
        self._in_flight.clear()
        self._turn.end()
        _release(self._threads)

    def _oldest(self) -> Any:
        future, timestamp, window = self._in_flight[0]
        result = future.result()
        self._in_flight.popleft()
        self._shared.ended(1)
        self._counts.update(result.counts)
        windowed = WindowedValue(result.value, timestamp, (window,))
        return windowed if result.tag is None else TaggedOutput(result.tag, windowed)

    def _has_failed(self) -> bool:
        return any(f.done() and f.exception() is not None for f, _, _ in self._in_flight)


class _Shared:
    """The threads of one step in this process, and how many elements they have in flight."""

    def __init__(self, threads: Threads) -> None:
        name = f"cxr-embed-{threads.name}"
        self._pool = ThreadPoolExecutor(threads.count, name) if threads.count else None
        self._limit = threads.in_flight
        self._lock = threading.Lock()
        self._in_flight = 0
        self._seconds = 0.0  # that the work on one element took lately
        self.users = 0

    def start(self, work: Any, element: Any) -> Future[Result]:
        with self._lock:
            self._in_flight += 1
        if self._pool is not None and self._seconds > WORTH_A_THREAD_SECONDS:
            return self._pool.submit(self._timed, work, element)
        done: Future[Result] = Future()
        try:
            done.set_result(self._timed(work, element))
        except Exception as error:
            done.set_exception(error)
        return done

    def _timed(self, work: Any, element: Any) -> Result:
        since = time.perf_counter()
        result: Result = work(element)
        self._seconds += (time.perf_counter() - since - self._seconds) / _AVERAGED_OVER
        return result

    def ended(self, count: int) -> None:
        with self._lock:
            self._in_flight -= count

    def is_full(self) -> bool:
        return self._in_flight > self._limit

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


_shared: dict[Threads, _Shared] = {}
_shared_lock = threading.Lock()


def _acquire(threads: Threads) -> _Shared:
    with _shared_lock:
        found = _shared.setdefault(threads, _Shared(threads))
        found.users += 1
        return found


def _release(threads: Threads) -> None:
    with _shared_lock:
        found = _shared[threads]
        found.users -= 1
        if not found.users:
            del _shared[threads]
            found.close()


class _Turns:
    """Which bundles of this process work; a bundle is known by the thread that Beam runs it on."""

    def __init__(self, at_a_time: int) -> None:
        self._at_a_time = at_a_time
        self._changed = threading.Condition()
        self._steps: dict[int, int] = {}  # by thread: how many of the bundle's steps hold its turn

    def take(self) -> int:
        """Waits for a turn, unless the bundle has one; returns what `give_back` takes."""
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(
                lambda: thread in self._steps or len(self._steps) < self._at_a_time
            )
            self._steps[thread] = self._steps.get(thread, 0) + 1
        return thread

    def give_back(self, thread: int) -> None:
        with self._changed:
            self._steps[thread] -= 1
            if not self._steps[thread]:
                del self._steps[thread]
                self._changed.notify_all()


_turns = _Turns(BUNDLES_AT_A_TIME)
