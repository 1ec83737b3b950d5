"""The main job against a pipeline of the original toolkit's shape.

    make bench
    PYTHONPATH=scripts python benchmarks/originals_shape.py [--images 60] [--write]

Both run in Beam's in-process runner, on uncompressed radiographs of 3056 x 2544 and one small model
with both kinds of signature, an EfficientNet-B0 at 224 pixels. Re-stated, the original took one
element at a time on one thread: ask whether its record exists; window and stretch with
`numpy.interp` in float64; a PNG through pypng in a `tf.Example`; the model, one at a time; a
`TFRecordWriter` into a temporary file, which was copied to its place. Needs pypng (pip install
pypng).
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import results
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from reading import originals_way
from workload import full_size_dicoms, run_job_here

from cxr_embed import models
from cxr_embed.efficientnet.export import export_model
from cxr_embed.elements import ImageRef
from cxr_embed.storage import find_images as sources

SIZE = 224


class _EmbedOne(beam.DoFn):
    def __init__(self, model: str, output: str) -> None:
        self._path, self._output = model, output

    def setup(self) -> None:
        self._model = tf.saved_model.load(self._path)
        self._call = self._model.signatures["serialized_example"]

    def process(self, path: str) -> Iterator[str]:
        target = f"{self._output}/{Path(path).stem}.tfrecord"
        if FileSystems.exists(target):
            return
        features = {
            "image/encoded": _bytes(originals_way(Path(path).read_bytes())),
            "image/format": _bytes(b"png"),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        outputs = self._call(tf.constant([example.SerializeToString()]))
        embedding = next(iter(outputs.values())).numpy()[0]
        features = {
            "image/id": _bytes(path.encode()),
            "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=embedding)),
        }
        record = tf.train.Example(features=tf.train.Features(feature=features))
        with tempfile.NamedTemporaryFile() as temporary:
            with tf.io.TFRecordWriter(temporary.name) as writer:
                writer.write(record.SerializeToString())
            with FileSystems.create(target) as file:
                file.write(Path(temporary.name).read_bytes())
        yield target


def _bytes(value: bytes) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _original(refs: list[ImageRef], output: Path, model: Path) -> float:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    paths = pipeline | beam.Create([ref.path for ref in refs])
    _ = paths | beam.ParDo(_EmbedOne(str(model), str(output)))
    started = time.perf_counter()
    pipeline.run().wait_until_finish()
    seconds = time.perf_counter() - started
    if len(list(output.glob("*.tfrecord"))) != len(refs):
        raise RuntimeError("not every image has a record")
    return seconds


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--images", type=int, default=60)
    arguments = parser.parse_args()
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = folder / "model"
        export_model(model, architecture="efficientnet-b0", image_size=SIZE, embedding_size=4096)
        refs = sources.find_images(
            str(full_size_dicoms(folder / "in", arguments.images, "explicit"))
        )
        settings = models.ModelSettings(str(model))
        output = folder / "out"
        run_job_here(refs[:2], output, settings)  # the model is loaded and warm for both
        seconds = []
        for _ in range(2):  # ours before and after, the slow one in between
            shutil.rmtree(output)
            seconds.append(run_job_here(refs, output, settings).seconds)
            print(f"  main job: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
            if len(seconds) == 1:
                (folder / "theirs").mkdir()
                theirs = _original(refs, folder / "theirs", model)
                print(f"  original's shape: {theirs:.1f} s", file=sys.stderr, flush=True)
    count, ours = len(refs), sum(seconds) / 2
    lines = [
        f"{count} uncompressed radiographs of 3056 x 2544, EfficientNet-B0 at {SIZE} pixels. The "
        "main job ran before and after the other; its mean counts.\n",
        "| pipeline | seconds | images/s | times as fast |",
        "| --- | --- | --- | --- |",
        f"| the original's shape | {theirs:.1f} | {count / theirs:.2f} | 1.0 |",
        f"| main job | {ours:.1f} | {count / ours:.2f} | {theirs / ours:.1f} |",
    ]
    results.show(
        "The original's shape", lines, is_written=arguments.write, section="original's shape"
    )


if __name__ == "__main__":
    main()
