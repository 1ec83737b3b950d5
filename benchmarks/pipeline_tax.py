"""What the main job costs on top of what it does: against a bare loop, no Beam, no threads.

    make bench
    PYTHONPATH=scripts python benchmarks/pipeline_tax.py [--model matrix|reference] [--write]
    TMPDIR=/dev/shm PYTHONPATH=scripts python ... leaves the noise of a disk out

`matrix`: 20,000 tiny DICOMs and a model that is one matrix product; the loop calls the same
functions: read, render, fit, embed, write. `reference`: 24 uncompressed radiographs of 3056 x 2544
and the EfficientNet-L2 at 475 pixels; the loop only calls the model, on arrays in memory. Model
loading is left out of both; the ways take turns in one process.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import cv2
import results
from workload import alternating, full_size_dicoms, matrix_model, run_job_here, tiny_dicoms

from cxr_embed import models, storage
from cxr_embed.elements import ImageRef
from cxr_embed.imaging.image_files import read_image
from cxr_embed.models.sharing import shared
from cxr_embed.records import Record, encode_record
from cxr_embed.storage import find_images as sources


def bare_loop(refs: list[ImageRef], output: Path, model: models.EmbeddingModel) -> float:
    """Everything that has to happen to an image, one after the other; returns seconds."""
    output.mkdir()
    started = time.perf_counter()
    for ref in refs:
        image = model.fit(read_image(storage.read_bytes(ref.path)))
        record = Record(ref.path, model.embed([image])[0])
        storage.write_whole(storage.join(str(output), ref.record), encode_record(record))
    return time.perf_counter() - started


def with_matrix_model(folder: Path, count: int, rounds: int) -> list[str]:
    """Measures the tax where the model costs next to nothing."""
    settings = models.ModelSettings(str(matrix_model(folder / "model")))
    refs = sources.find_images(str(tiny_dicoms(folder / "in", count)))
    model = shared(settings).model

    def fresh() -> Path:
        shutil.rmtree(folder / "out", ignore_errors=True)
        return folder / "out"

    ways = {
        "bare loop": lambda: bare_loop(refs, fresh(), model),
        "main job, one thread": lambda: (
            run_job_here(refs, fresh(), settings, decode_threads=1).seconds
        ),
        "main job": lambda: run_job_here(refs, fresh(), settings).seconds,
    }
    found = alternating(ways, rounds)
    lines = [
        f"{count:,} tiny DICOMs, a model of one matrix product, median of {rounds}, alternating.\n",
        "| way | images/s | microseconds an image | time / bare loop |",
        "| --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {name} | {count / s:,.0f} | {1e6 * s / count:,.0f} | {s / found['bare loop']:.2f} |"
        for name, s in found.items()
    ]


def with_reference_model(folder: Path, count: int, rounds: int) -> list[str]:
    """Measures the tax where the model is the real one."""
    from cxr_embed.efficientnet import reference

    path = reference.ensure_reference_model(lambda line: print(line, file=sys.stderr))
    settings = models.ModelSettings(path)
    refs = sources.find_images(str(full_size_dicoms(folder / "in", count, "explicit")))
    model = shared(settings).model
    images = [model.fit(read_image(storage.read_bytes(ref.path))) for ref in refs]

    def loop() -> None:
        for image in images:
            model.embed([image])

    def whole_job() -> float:
        shutil.rmtree(folder / "out", ignore_errors=True)
        return run_job_here(refs, folder / "out", settings).seconds

    found = alternating({"loop": loop, "job": whole_job}, rounds)
    loop_seconds, job_seconds = found["loop"], found["job"]
    return [
        f"{count} uncompressed radiographs of 3056 x 2544, EfficientNet-L2 at 475 pixels, "
        f"median of {rounds}, alternating.\n",
        "| way | seconds an image | time / model alone |",
        "| --- | --- | --- |",
        f"| the model alone, arrays in memory | {loop_seconds / count:.3f} | 1.00 |",
        f"| main job, files to records | {job_seconds / count:.3f} | "
        f"{job_seconds / loop_seconds:.3f} |",
    ]


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--model", choices=("matrix", "reference"), default="matrix")
    parser.add_argument("--images", type=int, help="default: 20,000, or 24 with the reference")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.model == "matrix":
            lines = with_matrix_model(Path(scratch), arguments.images or 20_000, arguments.rounds)
            title = "Pipeline tax without a model"
        else:
            lines = with_reference_model(Path(scratch), arguments.images or 24, arguments.rounds)
            title = "Pipeline tax with EfficientNet-L2"
    results.show(title, lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
