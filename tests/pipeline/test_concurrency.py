"""A DoFn that works in threads: order, windows, bounds for the process, and nothing left behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.windowed_value import WindowedValue
from builders import make_dicom

from cxr_embed.pipeline import EmbedRadiographs, ReadRadiographs, concurrency
from cxr_embed.pipeline.concurrency import Result, ThreadedDoFn, Threads


@pytest.fixture(autouse=True)
def always_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of these tests is quick, and is to be done in threads all the same."""
    monkeypatch.setattr(concurrency, "WORTH_A_THREAD_SECONDS", -1.0)


class Doubled(ThreadedDoFn):
    """Doubles numbers, the first ones slowest; odd ones go to another output."""

    def __init__(self, name: str = "test", in_flight: int = 4, fails_at: int = -1) -> None:
        self.name, self.in_flight, self.fails_at = name, in_flight, fails_at

    def threads(self) -> Threads:
        return Threads(self.name, 4, self.in_flight)

    def work(self, element: int) -> Result:
        time.sleep(0.02 / (1 + element))
        if element == self.fails_at:
            raise RuntimeError("broken")
        return Result("odd" if element % 2 else None, 2 * element, {"seen": 1})


def values(outputs: Iterator[Any]) -> list[Any]:
    plain = [o.value if isinstance(o, beam.pvalue.TaggedOutput) else o for o in outputs]
    return [o.value if isinstance(o, WindowedValue) else o for o in plain]


def bundle(fn: ThreadedDoFn, elements: list[int]) -> list[Any]:
    fn.start_bundle()
    out = [v for e in elements for v in values(fn.process(e, 0, None))]
    return out + values(fn.finish_bundle())


def test_results_come_in_the_order_of_the_elements() -> None:
    fn = Doubled()
    fn.setup()
    try:
        assert bundle(fn, list(range(20))) == [2 * number for number in range(20)]
    finally:
        fn.teardown()


def test_windows_and_outputs_are_those_of_the_element() -> None:
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        outputs = (
            pipeline
            | beam.Create([TimestampedValue(number, 10 * number) for number in range(6)])
            | beam.Map(lambda element: element)
            | beam.WindowInto(FixedWindows(20))
            | beam.ParDo(Doubled()).with_outputs("odd", main="even")
        )
        sums = outputs.even | beam.CombineGlobally(sum).without_defaults()
        assert_that(sums, equal_to([0, 4, 8]), label="even")
        odd = outputs.odd | "odd" >> beam.CombineGlobally(sum).without_defaults()
        assert_that(odd, equal_to([2, 6, 10]), label="odds")


def test_a_failed_element_fails_the_bundle_and_cancels_what_has_not_begun() -> None:
    begun: list[int] = []

    class Recorded(Doubled):
        def work(self, element: int) -> Result:
            begun.append(element)
            if element == 0:
                raise RuntimeError("broken")
            time.sleep(0.05)
            return Result(None, element, {})

    fn = Recorded("failing", in_flight=100)
    fn.setup()
    fn.start_bundle()
    with pytest.raises(RuntimeError, match="broken"):
        for element in range(40):
            list(fn.process(element, 0, None))
            time.sleep(0.002)
    fn.teardown()
    count = len(begun)
    assert count < 40
    time.sleep(0.1)
    assert len(begun) == count
    assert not [t for t in threading.enumerate() if t.name.startswith("cxr-embed-failing")]


def test_a_pipeline_that_failed_leaves_no_threads_and_no_turns() -> None:
    with (
        pytest.raises(RuntimeError, match="broken"),
        beam.Pipeline(runner="FnApiRunner") as pipeline,
    ):
        _ = pipeline | beam.Create(range(50)) | beam.ParDo(Doubled("broken", fails_at=20))
    assert not [t for t in threading.enumerate() if t.name.startswith("cxr-embed-broken")]
    assert concurrency._turns._steps == {}
    assert concurrency._shared == {}


def test_counts_become_counters() -> None:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create(range(30)) | beam.ParDo(Doubled())
    result = pipeline.run()
    result.wait_until_finish()
    (counter,) = result.metrics().query()["counters"]
    assert (counter.key.metric.name, counter.result) == ("seen", 30)


class Worker:
    """Threads as a worker has them: each takes a bundle of elements and has its own DoFn."""

    def __init__(self, fn_type: Any, threads: int, elements: int) -> None:
        self.taken = 0
        self.taken_before_first: int | None = None
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.fns = [fn_type(self) for _ in range(threads)]
        self.elements = elements

    def began(self) -> None:
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def ended(self) -> None:
        with self.lock:
            self.in_flight -= 1
            if self.taken_before_first is None:
                self.taken_before_first = self.taken

    def run(self) -> None:
        started = [threading.Thread(target=self.run_bundle, args=(fn,)) for fn in self.fns]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join(30)
            assert not thread.is_alive()

    def run_bundle(self, fn: ThreadedDoFn) -> None:
        fn.setup()
        fn.start_bundle()
        for element in range(self.elements):
            with self.lock:
                self.taken += 1
            for _ in fn.process(element, 0, None):
                self.ended()
        for _ in fn.finish_bundle():
            self.ended()
        fn.teardown()


class Slow(ThreadedDoFn):
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def threads(self) -> Threads:
        return Threads("slow", 3, 5)

    def work(self, element: Any) -> Result:
        self.worker.began()
        time.sleep(0.01)
        return Result(None, element, {})


def test_sixteen_harness_threads_hold_no_more_than_one_process_may() -> None:
    worker = Worker(Slow, threads=16, elements=6)
    worker.run()
    assert worker.taken == 16 * 6
    # In flight: 5, and one more for each of the two bundles that work.
    assert worker.most_in_flight <= 5 + concurrency.BUNDLES_AT_A_TIME
    # A waiting bundle has taken nothing: all of it can be given to other workers.
    assert worker.taken_before_first is not None
    assert worker.taken_before_first <= 5 + concurrency.BUNDLES_AT_A_TIME


def test_two_threaded_steps_of_one_bundle_share_its_turn() -> None:
    """Otherwise bundles that each hold one turn would wait for each other's."""

    class Both:
        def __init__(self) -> None:
            self.steps = [Doubled("one", 1), Doubled("two", 1)]

        def run(self) -> None:
            one, two = self.steps
            for step in self.steps:
                step.setup()
            for step in reversed(self.steps):  # as Beam does
                step.start_bundle()
            for element in range(5):
                for value in values(one.process(element, 0, None)):
                    list(two.process(value, 0, None))
            for value in values(one.finish_bundle()):
                list(two.process(value, 0, None))
            list(two.finish_bundle())
            for step in self.steps:
                step.teardown()

    threads = [threading.Thread(target=Both().run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_quick_work_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "WORTH_A_THREAD_SECONDS", 10.0)
    where: set[str] = set()

    class Where(Doubled):
        def work(self, element: int) -> Result:
            where.add(threading.current_thread().name)
            return Result(None, element, {})

    fn = Where()
    fn.setup()
    assert bundle(fn, [1, 2, 3]) == [1, 2, 3]
    fn.teardown()
    assert where == {threading.current_thread().name}


def note(element: Any, file: str, sign: str) -> Any:
    """Notes in a file what has passed; an append is atomic, and no thread copies a file."""
    with Path(file).open("a") as stream:
        stream.write(sign)
    return element


def test_a_bundle_keeps_its_turn_until_its_last_batch_is_through_the_model(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Else the next bundles would fill batches of their own while this one waits for the model."""
    path = tmp_path / "a.dcm"
    path.write_bytes(make_dicom())
    file = str(tmp_path / "passed")

    def bundle() -> None:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            read = pipeline | beam.Create([str(path)] * 7, reshuffle=False) | ReadRadiographs()
            before = read.radiographs | "before" >> beam.Map(note, file, "+")
            embedded = before | EmbedRadiographs(str(tiny_model), batch_size=4)
            _ = embedded.embeddings | "after" >> beam.Map(note, file, "-")

    threads = [threading.Thread(target=bundle) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    changes = [1 if sign == "+" else -1 for sign in Path(file).read_text()]
    assert (len(changes), sum(changes)) == (6 * 14, 0)
    assert max(itertools.accumulate(changes)) <= concurrency.BUNDLES_AT_A_TIME * 7
