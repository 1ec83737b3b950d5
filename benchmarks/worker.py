"""What a worker of 16 harness threads holds, and what is lost with it when it is killed.

    make bench
    PYTHONPATH=scripts python benchmarks/worker.py [--threads 1 16] [--images 1024] [--write]

A Dataflow worker runs many bundles in one process, each on a thread of its own with its own DoFn
instances. Here each thread runs Beam's in-process runner on one bundle of references after the
other; model, reading threads and limits are shared by the process, as on Dataflow. All threads
start at the same moment. Images are uncompressed radiographs of 3056 x 2544; the model is an
EfficientNet-B0 at 128 pixels.

An image is taken when Beam has passed it to `ReadRadiographs`, and in flight until its record is
written. Then another worker of the same kind is killed after a number of records. Beam gives a
bundle that had not ended to another worker, which repeats the whole bundle: the table counts its
images that had been begun, and those among them without a record.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import results
from workload import apart, full_size_dicoms

from cxr_embed.efficientnet.export import export_model
from cxr_embed.elements import ImageRef
from cxr_embed.pipeline import EmbedRadiographs, ReadRadiographs, WriteRecords

# The worker's process imports this module by name, so that its pipelines reach these.
_events: int
_start: threading.Barrier
_first: set[str] = set()  # bundles that begin together

_WARM_UP = "warm-up"


def _taken(ref: ImageRef) -> ImageRef:
    if ref.folder in _first:
        _first.remove(ref.folder)
        _start.wait()
    _note("taken", ref.folder)
    return ref


def _written(embedded: Any) -> None:
    _note("written", embedded.record.partition("/")[0])


def _note(event: str, bundle: str) -> None:
    """One line an event, which a killed process leaves behind; appending is atomic."""
    os.write(_events, f"{event} {bundle}\n".encode())


def work(folder: str, threads: int, batch_size: int, images: int, bundle: int) -> None:
    """Is a worker: embeds all images, bundle by bundle, and prints what it took as JSON."""
    global _events, _start  # noqa: PLW0603
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _events = os.open(f"{folder}/events", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    files = sorted(map(str, Path(folder, "in").iterdir()))
    bundles: queue.Queue[list[ImageRef]] = queue.Queue()
    for start in range(0, images, bundle):
        numbers = range(start, min(start + bundle, images))
        bundles.put([ImageRef(files[n % len(files)], f"{n:06d}", f"b{start}") for n in numbers])
    threads = min(threads, bundles.qsize())

    _run_bundle([ImageRef(files[0], _WARM_UP, _WARM_UP)], folder, batch_size)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _start = threading.Barrier(threads)
    _first.update(refs[0].folder for refs in list(bundles.queue)[:threads])

    def harness_thread() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                refs = bundles.get_nowait()
                _run_bundle(refs, folder, batch_size)
                _note("ended", refs[0].folder)

    started = time.perf_counter()
    pool = [threading.Thread(target=harness_thread) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "idle": idle / 1024, "peak": peak / 1024}))


def _run_bundle(refs: list[ImageRef], folder: str, batch_size: int) -> None:
    """The graph between the Reshuffle and the tables, on one bundle."""
    pipeline = beam.Pipeline(runner="FnApiRunner")
    images = pipeline | beam.Create(refs, reshuffle=False).with_output_types(ImageRef)
    read = images | beam.Map(_taken).with_output_types(ImageRef) | ReadRadiographs()
    embed = read.radiographs | EmbedRadiographs(f"{folder}/model", batch_size)
    write = embed.embeddings | WriteRecords(f"{folder}/out", "mirror")
    _ = write.embedded | beam.Map(_written)
    pipeline.run().wait_until_finish()


class _Events(NamedTuple):
    """What a worker noted, from its first bundles on.

    Attributes:
        before_first: images taken before the first record was written.
        in_flight: images taken and not written, at most.
        begun_again: images taken, in bundles that had not ended.
        lost: those among them without a record.
    """

    before_first: int
    in_flight: int
    begun_again: int
    lost: int


def _read_events(file: Path) -> _Events:
    taken: Counter[str] = Counter()
    written: Counter[str] = Counter()
    before_first = in_flight = 0
    for line in file.read_text().splitlines():
        event, bundle = line.split()
        if bundle == _WARM_UP:
            continue
        if event == "ended":
            del taken[bundle], written[bundle]
        else:
            (taken if event == "taken" else written)[bundle] += 1
        if event == "written" and not before_first:
            before_first = taken.total()
        in_flight = max(in_flight, taken.total() - written.total())
    return _Events(before_first, in_flight, taken.total(), taken.total() - written.total())


def _worker(
    folder: Path, threads: int, batch_size: int, images: int, bundle: int
) -> subprocess.Popen[str]:
    (folder / "events").unlink(missing_ok=True)
    arguments = (str(folder), threads, batch_size, images, bundle)
    code = f"import worker; worker.work{arguments}"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip


def _measure(folder: Path, threads: int, batch_size: int, images: int, bundle: int) -> str:
    events = folder / "events"
    with _worker(folder, threads, batch_size, images, bundle) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the worker ended with {process.returncode}")
    found, whole = json.loads(output), _read_events(events)
    with _worker(folder, threads, batch_size, images, bundle) as process:
        while not events.exists() or events.read_text().count("written b") < images // 2:
            if process.poll() is not None:
                raise RuntimeError("the worker ended before it was killed")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    killed = _read_events(events)
    return (
        f"| {threads} | {batch_size} | {whole.before_first} | {whole.in_flight} | "
        f"{found['peak']:,.0f} | {found['peak'] - found['idle']:,.0f} | "
        f"{killed.begun_again} | {killed.lost} | "
        f"{images / found['seconds']:.1f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--bundle", type=int, default=32, help="images in a bundle")
    arguments = parser.parse_args()
    images, bundle = arguments.images, arguments.bundle
    lines = [
        f"{images:,} uncompressed radiographs of 3056 x 2544 in bundles of {bundle}, "
        f"EfficientNet-B0 at 128 pixels. Killed after {images // 2:,} records.\n",
        "| threads | batch size | taken before the first record | in flight at most "
        "| peak memory, MiB | more than after one image | killed: images begun again "
        "| without a record | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        full_size_dicoms(folder / "in", 8, "explicit")
        apart(export_model, folder / "model", architecture="efficientnet-b0", image_size=128)
        lines += [
            _measure(folder, threads, batch_size, images, bundle)
            for batch_size in arguments.batch_sizes
            for threads in arguments.threads
        ]
    results.show("A worker of many threads", lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
