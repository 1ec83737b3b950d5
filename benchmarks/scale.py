"""Whether many images cost each what few cost, and whether all done is soon said.

    make bench
    PYTHONPATH=scripts python benchmarks/scale.py [--counts 1000 10000 100000] [--write]

Tiny DICOMs and a model of one matrix product, each run in a process of its own, turn by turn: one
run after another may take a third longer for no reason of the program's. Then the largest
again, all of it done: what that takes over listing the two folders, and how many inputs and records
it opens.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import results
from workload import Ran, apart, matrix_model, run_job, tiny_dicoms

from cxr_embed import storage

# Runs the main job and fails if it opens an input or a record, as Python's audit hook sees it.
_AUDITED = """
import sys
opened = []
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".dcm", ".tfrecord")):
        opened.append(arguments[0])
sys.addaudithook(hook)
from cxr_embed.cli import main, run
status = main.guarded(run.main, sys.argv[1:])
print(len(opened), "inputs and records opened", file=sys.stderr)
sys.exit(status or bool(opened))
"""


def _listing_seconds(*folders: Path) -> float:
    started = time.perf_counter()
    for folder in folders:
        for _ in storage.list_paths(str(folder)):
            pass
    return time.perf_counter() - started


def _start(ran: Ran) -> float:
    return ran.manifest["seconds"]["until_first_image"]


def _rate(ran: Ran) -> float:
    """Images a second, from the first image's end on: what comes before is the graph's start."""
    seconds = ran.manifest["seconds"]
    count: int = ran.manifest["counts"]["embedded"]
    return (count - 1) / (seconds["wall"] - seconds["until_first_image"])


def _row(count: int, runs: Sequence[Ran], first: Sequence[Ran]) -> str:
    rate, memory = _median(_rate, runs), _median(_peak, runs)
    rates = [_rate(ran) for ran in runs]
    return (
        f"| {count:,} | {_median(_start, runs):.2f} | {rate:,.0f} ({min(rates):,.0f} to "
        f"{max(rates):,.0f}) | {rate / _median(_rate, first):.2f} | {memory / 2**20:,.0f} | "
        f"{memory / _median(_peak, first):.2f} |"
    )


def _peak(ran: Ran) -> float:
    return ran.peak_bytes


def _median(figure: Callable[[Ran], float], runs: Sequence[Ran]) -> float:
    return statistics.median(figure(ran) for ran in runs)


def main() -> None:
    """Prints the tables."""
    parser = results.parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ran: dict[int, list[Ran]] = {count: [] for count in arguments.counts}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = apart(matrix_model, folder / "model")
        for count in arguments.counts:
            tiny_dicoms(folder / f"in{count}", count)
        for _ in range(arguments.rounds):
            for count, runs in ran.items():
                images, output = folder / f"in{count}", folder / "out"
                shutil.rmtree(output, ignore_errors=True)
                flags = {"input_path": images, "output_path": output, "model_path": model}
                runs.append(run_job(**flags))
                print(f"  {count:,}: {_rate(runs[-1]):,.0f} images/s", file=sys.stderr, flush=True)
        listing = _listing_seconds(images, output)
        listing = min(listing, _listing_seconds(images, output))
        again = run_job("-c", _AUDITED, **flags)
        if again.manifest["counts"]["already_there"] != count:
            raise RuntimeError(again.manifest["counts"])
    first = ran[arguments.counts[0]]
    lines = [
        f"Median of {arguments.rounds}, alternating.\n",
        "| images | seconds until the first image | images/s from then on (lowest to highest) "
        "| against the first row | peak memory, MiB | against the first row |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(count, runs, first) for count, runs in ran.items()),
        "",
        f"All {count:,} once more, all done: {again.seconds:.1f} s from start to exit, "
        f"{again.seconds - listing:.1f} s over listing both folders ({listing:.1f} s). No input is "
        "opened, no record either.",
    ]
    results.show("Scale and resume", lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
