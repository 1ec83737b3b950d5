"""This version beside an earlier one: images a second and memory of the main job, turn by turn.

    git worktree add ../earlier COMMIT
    PYTHONPATH=scripts python benchmarks/versions.py --against ../earlier [--write]
    TMPDIR=/dev/shm PYTHONPATH=scripts python ... leaves the noise of a disk out

Both versions run with this Python, each run in a process of its own, on the same files and models:

- uncompressed and JPEG 2000 radiographs of 3056 x 2544, an EfficientNet-B0 at 128 pixels;
- tiny radiographs, a model of one matrix product: what is left is the pipeline's own work.

The table also shows whether both wrote the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import results
from workload import ROOT, Ran, apart, full_size_dicoms, matrix_model, run_job, tiny_dicoms

from cxr_embed.efficientnet.export import export_model

COUNTS = {"uncompressed": 200, "JPEG 2000": 24, "tiny": 5_000}


def _images(case: str, folder: Path, count: int) -> Path:
    if case == "tiny":
        return tiny_dicoms(folder, count)
    return full_size_dicoms(folder, count, "explicit" if case == "uncompressed" else "j2k_lossless")


def _model(case: str, folder: Path) -> Path:
    if case == "tiny":
        apart(matrix_model, folder)
    else:
        apart(export_model, folder, architecture="efficientnet-b0", image_size=128)
    return folder


def _digest(output: Path) -> str:
    total = hashlib.sha256()
    for record in sorted(output.rglob("*.tfrecord")):
        total.update(record.relative_to(output).as_posix().encode() + record.read_bytes())
    return total.hexdigest()


def _rate(ran: Ran) -> float:
    """Images a second while the graph runs, its start included and the model's loading not."""
    count: int = ran.manifest["counts"]["embedded"]
    return count / ran.manifest["seconds"]["wall"]


def _compare(case: str, count: int, rounds: int, checkouts: dict[str, Path]) -> list[str]:
    runs: dict[str, list[Ran]] = {name: [] for name in checkouts}
    digests = set()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images, model = _images(case, folder / "in", count), _model(case, folder / "model")
        for _ in range(rounds):
            for name, checkout in checkouts.items():
                output = folder / "out"
                shutil.rmtree(output, ignore_errors=True)
                ran = run_job(
                    checkout=checkout, input_path=images, output_path=output, model_path=model
                )
                if ran.manifest["counts"]["embedded"] != count:
                    raise RuntimeError(f"{name}: {ran.manifest['counts']}")
                digests.add(_digest(output))
                runs[name].append(ran)
                print(f"  {case}, {name}: {_rate(ran):.1f} images/s", file=sys.stderr, flush=True)
    rows = []
    first = statistics.median(_rate(ran) for ran in next(iter(runs.values())))
    for name, found in runs.items():
        rates = [_rate(ran) for ran in found]
        rate = statistics.median(rates)
        rows.append(
            f"| {count:,} {case} | {name} | {rate:,.1f} ({min(rates):,.1f} to {max(rates):,.1f}) "
            f"| {rate / first:.2f} | {statistics.median(ran.seconds for ran in found):.1f} "
            f"| {statistics.median(ran.peak_bytes for ran in found) / 2**20:,.0f} "
            f"| {'yes' if len(digests) == 1 else 'no'} |"
        )
    return rows


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--against", type=Path, required=True, help="a checkout of another version")
    parser.add_argument("--cases", nargs="+", choices=COUNTS, default=list(COUNTS))
    parser.add_argument(
        "--images", type=int, help=f"default: {', '.join(map(str, COUNTS.values()))}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    checkouts = {"earlier": arguments.against.resolve(), "this": ROOT}
    lines = [
        f"Median of {arguments.rounds} (lowest to highest), alternating.\n",
        "| images | version | images/s | against earlier | seconds from start to exit "
        "| peak memory, MiB | all records equal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in arguments.cases:
        count = arguments.images or COUNTS[case]
        lines += _compare(case, count, arguments.rounds, checkouts)
    results.show("This version and an earlier one", lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
