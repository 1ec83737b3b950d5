"""Beam's RunInference against BatchElements and a batched DoFn: what the step itself costs.

    make bench
    python benchmarks/inference_step.py [--write]

Both run the same trivial model over the same elements in the in-process runner, alternating. What
differs is only the step; the table shows elements a second and the ratio.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, RunInference
from results import write_section

ELEMENTS = 20_000
ROUNDS = 5
WIDTH = 64


class _Model:
    """One matrix product."""

    def __init__(self) -> None:
        self._weights = np.ones((WIDTH, 8), np.float32)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        return np.asarray(batch @ self._weights)


class _Handler(ModelHandler[np.ndarray, np.ndarray, _Model]):
    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def load_model(self) -> _Model:
        return _Model()

    def run_inference(
        self, batch: Sequence[np.ndarray], model: _Model, inference_args: Any = None
    ) -> Iterable[np.ndarray]:
        return list(model.embed(np.stack(batch)))

    def batch_elements_kwargs(self) -> dict[str, int]:
        return {"min_batch_size": self._batch_size, "max_batch_size": self._batch_size}

    def get_num_bytes(self, batch: Sequence[np.ndarray]) -> int:
        return sum(array.nbytes for array in batch)  # the default pickles the batch


class _Embed(beam.DoFn):
    def setup(self) -> None:
        self._model = _Model()

    def process(self, batch: list[np.ndarray]) -> Iterable[np.ndarray]:
        yield from self._model.embed(np.stack(batch))


def _make(_: int) -> np.ndarray:
    return np.ones(WIDTH, np.float32)


def _seconds(step: Callable[[Any], Any]) -> float:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    numbers = pipeline | beam.Create(range(ELEMENTS)) | beam.Reshuffle() | beam.Map(_make)
    _ = step(numbers) | beam.combiners.Count.Globally()
    started = time.perf_counter()
    pipeline.run().wait_until_finish()
    return time.perf_counter() - started


def main() -> None:
    """Prints the table."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    lines = [
        f"{ELEMENTS} elements, median of {ROUNDS}, alternating.\n",
        "| batch size | RunInference /s | batched DoFn /s | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for size in (1, 16):
        steps: dict[str, Callable[[Any], Any]] = {
            "run": lambda items, size=size: items | RunInference(_Handler(size)),
            "own": lambda items, size=size: (
                items | beam.BatchElements(size, size) | beam.ParDo(_Embed())
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                times[name].append(_seconds(step))
        run, own = (ELEMENTS / statistics.median(times[name]) for name in ("run", "own"))
        lines.append(f"| {size} | {run:,.0f} | {own:,.0f} | {own / run:.2f} |")
    print("\n".join(lines))
    if "--write" in sys.argv:
        write_section("inference step", "## The inference step\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
