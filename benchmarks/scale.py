"""Whether many images cost each what few cost, and whether all done is soon said.

    make bench
    PYTHONPATH=scripts python benchmarks/scale.py [--counts 1000 10000 100000] [--write]

Tiny DICOMs and a model of one matrix product, each run in a process of its own. Then the largest
again, all of it done: what that takes over listing the two folders, and how many inputs and records
it opens.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from results import write_section
from workload import Ran, matrix_model, run_job, tiny_dicoms

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


def _rate(ran: Ran) -> float:
    """Images a second, from the first image's end on: what comes before is the graph's start."""
    seconds = ran.manifest["seconds"]
    count: int = ran.manifest["counts"]["embedded"]
    return (count - 1) / (seconds["wall"] - seconds["until_first_image"])


def _row(count: int, ran: Ran, first: Ran) -> str:
    start = ran.manifest["seconds"]["until_first_image"]
    memory = ran.peak_bytes / 2**20
    return (
        f"| {count:,} | {start:.2f} | {_rate(ran):,.0f} | {_rate(ran) / _rate(first):.2f} | "
        f"{memory:,.0f} | {ran.peak_bytes / first.peak_bytes:.2f} |"
    )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    rows, ran = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = matrix_model(folder / "model")
        for count in arguments.counts:
            images, output = folder / f"in{count}", folder / "out"
            shutil.rmtree(output, ignore_errors=True)
            tiny_dicoms(images, count)
            flags = {"input_path": images, "output_path": output, "model_path": model}
            ran.append(run_job(**flags))
            rows.append(_row(count, ran[-1], ran[0]))
            print(rows[-1], file=sys.stderr, flush=True)
        listing = _listing_seconds(images, output)
        listing = min(listing, _listing_seconds(images, output))
        again = run_job("-c", _AUDITED, **flags)
        if again.manifest["counts"]["already_there"] != count:
            raise RuntimeError(again.manifest["counts"])
    lines = [
        "| images | seconds until the first image | images/s from then on | against the first row "
        "| peak memory, MiB | against the first row |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"All {count:,} once more, all done: {again.seconds:.1f} s from start to exit, "
        f"{again.seconds - listing:.1f} s over listing both folders ({listing:.1f} s). No input is "
        "opened, no record either.",
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section("scale and resume", "## Scale and resume\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
