"""Embeddings back into memory: ours from records and from Parquet, against tf.data.

    python benchmarks/reading_back.py [--records 100000] [--write]

Each way reads all embeddings into one float32 matrix with their ids, in a process of its own,
turn by turn; the peak memory is what that process had at its largest, less what it had before it
read. The files are in the page cache. `verify` looks at every record.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import results

SIZE = 4096
ROUNDS = 3

WAYS = {
    "tf.data, AUTOTUNE": "records",
    "tf.data, 8 readers": "records",
    "load_embeddings, records": "records",
    "load_embeddings, Parquet": "packed",
    "verify, records": "records",
}

_NOTES = """

Goals: from records at least twice tf.data with its best number of readers, from Parquet 7 times
tf.data as its guide says it (AUTOTUNE), at most 1.3 times the data's own size in memory; verify at
least 20,000 records a second. 8 readers were the best of five numbers that were tried, on another
machine. tf.data reads with `TFRecordDataset(num_parallel_reads=...)`, parses batches of 1,024 in
parallel and copies them into one matrix.

What made a difference, from records: parsing by template instead of by field; a matrix on huge
pages; and one thread that reads while another touches the matrix's memory before it is needed. The
system provides new memory as slowly as a thread reads records into it, and a copy by Python holds
the interpreter's lock meanwhile; two threads that read are slower than one. Parquet is read by two
threads, since pyarrow does not hold the lock. A list without nulls made it roughly twice as fast.
"""


def make_records(folder: Path, count: int) -> None:
    """Writes records as the main job does, with MIMIC's folders in their image ids."""
    from cxr_embed.records import Record, encode_record

    folder.mkdir()
    generator = np.random.default_rng(0)
    for start in range(0, count, 1000):
        values = generator.standard_normal((min(1000, count - start), SIZE), np.float32)
        for number, embedding in enumerate(values, start):
            name = f"{number:08x}-02aa804e-bde0afdd-112c0b34-7bc16630"
            path = f"mimic-cxr/2.0.0/files/p10/p{10**7 + number // 4}/s{5 * 10**7 + number // 2}"
            data = encode_record(Record(f"{path}/{name}.dcm", embedding))
            (folder / f"{name}.tfrecord").write_bytes(data)


def read_with_tf_data(folder: str, readers: int | None) -> int:
    """Reads a folder of records with so many parallel readers; None lets tf.data choose."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    names = sorted(entry.path for entry in os.scandir(folder))
    spec = {
        "image/id": tf.io.FixedLenFeature([], tf.string),
        "embedding": tf.io.FixedLenFeature([SIZE], tf.float32),
    }
    records = tf.data.TFRecordDataset(names, num_parallel_reads=readers or tf.data.AUTOTUNE)
    parsed = records.batch(1024).map(
        lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=tf.data.AUTOTUNE
    )
    values = np.empty((len(names), SIZE), np.float32)
    ids: list[bytes] = []
    for batch in parsed.prefetch(tf.data.AUTOTUNE):
        values[len(ids) : len(ids) + len(batch["embedding"])] = batch["embedding"].numpy()
        ids += batch["image/id"].numpy().tolist()
    return len(ids)


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    return 0


def measure(way: str, folder: str) -> dict[str, float]:
    """Runs one way once in this process; imports are left out."""
    if way.startswith("tf.data"):
        import tensorflow  # noqa: F401
    if way.endswith("Parquet"):
        import pyarrow.parquet  # noqa: F401
    from cxr_embed.datasets import verify
    from cxr_embed.embeddings.loading import load_embeddings

    before, clock = _peak_bytes(), time.perf_counter()
    if way.startswith("tf.data"):
        rows = read_with_tf_data(folder, 8 if way.endswith("8 readers") else None)
    elif way.startswith("verify"):
        rows = verify.verify(folder, None, lambda total: lambda done: None).embeddings
    else:
        rows = len(load_embeddings(folder))
    seconds = time.perf_counter() - clock
    return {"rate": rows / seconds, "memory": (_peak_bytes() - before) / (4 * SIZE * rows)}


def _apart(way: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, "--folder", str(folder)], check=True,
        capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(folder: Path, rounds: int) -> list[str]:
    """Measures all ways in turn; returns the table."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, below in WAYS.items():
            found[way].append(_apart(way, folder / below))
            print(way, found[way][-1], flush=True)
    guide, fastest = (
        statistics.median(run["rate"] for run in found[way])
        for way in ("tf.data, AUTOTUNE", "tf.data, 8 readers")
    )
    lines = [
        "| way | embeddings/s | times AUTOTUNE | times 8 readers | memory, times the data |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way, runs in found.items():
        rate = statistics.median(run["rate"] for run in runs)
        memory = statistics.median(run["memory"] for run in runs)
        lines.append(
            f"| {way} | {rate:,.0f} | {rate / guide:.1f} | {rate / fastest:.1f} | {memory:.2f} |"
        )
    return lines


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--keep", type=Path, help="make or find the files here, and keep them")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        pack_seconds = _prepare(folder, arguments.records)
        lines = compare(folder, arguments.rounds)
    text = "\n".join(lines)
    if pack_seconds:
        text += f"\n\n`pack` wrote the Parquet shards at {arguments.records / pack_seconds:,.0f} "
        text += "embeddings/s."
    print(text)
    if arguments.write:
        title = f"## Reading back: {arguments.records:,} embeddings of {SIZE:,} floats"
        results.write_section("reading back", f"{title}\n\n{text}{_NOTES}")


def _prepare(folder: Path, count: int) -> float:
    """Makes the files where they are missing; returns how long packing took, 0 if it stood."""
    from cxr_embed.datasets.pack import Pack, pack

    if not (folder / "records").exists():
        folder.mkdir(exist_ok=True)
        make_records(folder / "records", count)
    if (folder / "packed").exists():
        return 0.0
    clock = time.perf_counter()
    wanted = Pack(str(folder / "records"), str(folder / "packed"))
    pack(wanted, print, lambda total: lambda done: None)
    return time.perf_counter() - clock


if __name__ == "__main__":
    main()
