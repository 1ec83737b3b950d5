"""Whether decoding and the model overlap: a stand-in accelerator that waits, files that decode.

    make bench
    PYTHONPATH=scripts python benchmarks/overlap.py [--write]

The stand-in takes what an EfficientNet-L2 takes (475 x 475 x 3) and waits 20 ms an image without
holding the interpreter or a core, as a GPU does. The main job then cannot be faster than the larger
of two times: what reading, decoding, rendering and fitting take on one core, divided by the cores;
and the waiting. Both are measured here, and the table says how close it comes.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import results
from workload import full_size_dicoms, run_job_here

from cxr_embed import models, storage
from cxr_embed.elements import ImageRef
from cxr_embed.imaging.image_files import read_image
from cxr_embed.models import sharing
from cxr_embed.models.fit import ModelInput, fit_image
from cxr_embed.radiograph import Radiograph
from cxr_embed.storage import find_images as sources
from cxr_embed.storage.parallel import usable_cores

SECONDS_AN_IMAGE = 0.020
IMAGES = {"explicit": 300, "j2k_lossless": 24}


class StandIn:
    """An accelerator's manners, not its numbers; see `models.EmbeddingModel`."""

    input = ModelInput(475, 475, 3)
    embedding_size = 4096
    device = "gpu"
    max_batch_size = None
    best_batch_size = 16

    def fit(self, radiograph: Radiograph) -> np.ndarray:
        return fit_image(radiograph, self.input)

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        time.sleep(SECONDS_AN_IMAGE * len(images))
        return np.stack([np.full(4096, image[237, 237, 0]) for image in images])


def _decode_seconds(refs: Sequence[ImageRef], model: StandIn) -> float:
    """Seconds an image on one thread, the median."""
    times = []
    for ref in refs:
        started = time.perf_counter()
        model.fit(read_image(storage.read_bytes(ref.path)))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _measure(folder: Path, syntax: str, batch_size: int, rounds: int) -> str:
    count, cores = IMAGES[syntax], usable_cores()
    refs = sources.find_images(str(full_size_dicoms(folder / syntax, count, syntax)))
    model = StandIn()
    sharing.load = lambda _settings: model  # what the job loads in this process
    settings = models.ModelSettings("a stand-in accelerator")
    model.embed([model.fit(read_image(storage.read_bytes(refs[0].path)))])
    decode, start_up, whole = [], [], []
    for _ in range(rounds):
        shutil.rmtree(folder / "out", ignore_errors=True)
        start_up.append(run_job_here(refs[:1], folder / "out", settings, batch_size=1).seconds)
        decode.append(_decode_seconds(refs[: min(count, 24)], model))
        shutil.rmtree(folder / "out", ignore_errors=True)
        result = run_job_here(refs, folder / "out", settings, batch_size=batch_size)
        whole.append(result.seconds / count)
        print(f"  {syntax}: {decode[-1]:.4f} {whole[-1]:.4f}", file=sys.stderr, flush=True)
    decoding, job = statistics.median(decode), statistics.median(whole)
    floor = max(decoding / cores, SECONDS_AN_IMAGE)
    first = max(0.0, statistics.median(start_up) - decoding - SECONDS_AN_IMAGE)
    return (
        f"| {syntax} | {batch_size} | {1e3 * decoding / cores:.1f} | {1e3 * SECONDS_AN_IMAGE:.1f} "
        f"| {1e3 * job:.1f} | {job / floor:.2f} | {(job - first / count) / floor:.2f} | "
        f"{(decoding + SECONDS_AN_IMAGE) / job:.2f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    lines = [
        f"3056 x 2544 pixels, {' and '.join(map(str, IMAGES.values()))} images; milliseconds an "
        f"image, median of {arguments.rounds}.\n",
        "| syntax | batch size | decoding / cores | model | main job | job / the larger | "
        "start of the graph left out | times as fast as one after the other |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        lines += [
            _measure(Path(scratch), syntax, batch_size, arguments.rounds)
            for syntax in IMAGES
            for batch_size in (1, 16)
        ]
    results.show("Overlap of decoding and model", lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
