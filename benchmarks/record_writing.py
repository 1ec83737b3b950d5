"""Writing records: ours against `tf.train.Example` and `tf.io.TFRecordWriter`.

    make bench
    PYTHONPATH=scripts python benchmarks/record_writing.py [--write]

20,000 records of 4,096 floats, one file each. Both write under a temporary name and rename.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import results
import tensorflow as tf
from workload import alternating

from cxr_embed.records import Record, encode_record
from cxr_embed.storage import write_whole

RECORDS, FLOATS = 20_000, 4096


def ours(path: Path, image_id: str, embedding: np.ndarray) -> None:
    """One record as the main job writes it."""
    write_whole(str(path), encode_record(Record(image_id, embedding)))


def tensorflows(path: Path, image_id: str, embedding: np.ndarray) -> None:
    """One record as the original toolkit wrote it, but whole or not at all."""
    feature = {
        "image/id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image_id.encode()])),
        "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=embedding)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    temporary = path.with_suffix(".tmp")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        writer.write(example.SerializeToString())
    temporary.rename(path)


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.records
    embeddings = np.random.default_rng(0).normal(size=(64, FLOATS)).astype(np.float32)

    def all_with(way: Callable[[Path, str, np.ndarray], None], folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number in range(count):
            name = f"image{number:06d}"
            way(folder / f"{name}.tfrecord", f"in/{name}.dcm", embeddings[number % 64])

    with tempfile.TemporaryDirectory() as scratch:
        found = alternating(
            {
                "ours": lambda: all_with(ours, Path(scratch, "ours")),
                "TensorFlow": lambda: all_with(tensorflows, Path(scratch, "tf")),
            },
            arguments.rounds,
        )
        same = Path(scratch, "ours/image000001.tfrecord").stat().st_size
        if same != Path(scratch, "tf/image000001.tfrecord").stat().st_size:
            raise RuntimeError("the two write different records")
    lines = [
        f"{count:,} records of {FLOATS:,} floats, median of {arguments.rounds}, alternating.\n",
        "| way | records/s | times as fast |",
        "| --- | --- | --- |",
        f"| ours | {count / found['ours']:,.0f} | {found['TensorFlow'] / found['ours']:.1f} |",
        f"| tf.train.Example, TFRecordWriter | {count / found['TensorFlow']:,.0f} | 1.0 |",
    ]
    results.show("Writing records", lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
