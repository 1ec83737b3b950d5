"""Embeddings made of two Gaussian clouds, so that the best possible AUROC is known."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxr_embed.heads.dataset import Labelled
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.records import Record, encode_record

SPLITS = ("train", "train", "train", "tune", "test")


def bayes_auroc(distance: float) -> float:
    """Returns the AUROC of the best classifier of two unit Gaussians so far apart."""
    return 0.5 * (1 + math.erf(distance / 2))


def clouds(
    n: int, size: int, distance: float, seed: int = 0, positives: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings, float32 (n, size), and labels, float32 (n,).

    Negatives and positives are unit Gaussians with centres `distance` apart, then moved and
    stretched, float by float, as embeddings of a network are.
    """
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < positives).astype(np.float32)
    direction = rng.standard_normal(size)
    direction *= distance / np.linalg.norm(direction)
    values = rng.standard_normal((n, size)) + labels[:, None] * direction
    return (values * rng.uniform(0.1, 3, size) + rng.uniform(-5, 5, size)).astype(
        np.float32
    ), labels


def in_memory(values: np.ndarray, labels: np.ndarray, splits: Sequence[str]) -> Any:
    """Returns embeddings and labels as the training takes them, one head, an image a patient."""
    ids = [f"im{row}" for row in range(len(values))]
    embeddings = MappedEmbeddings("memory", ids, [f"{i}.dcm" for i in ids], values, None)
    at = np.arange(len(values))
    labelled = Labelled(
        ("OPACITY",), at, labels.reshape(len(values), -1), np.array(splits, dtype=object), at, False
    )
    return embeddings, labelled


def write_records(folder: Path, values: np.ndarray, prefix: str = "gs://bucket/files") -> None:
    """Writes one record an embedding: image im00000 of patient p0, three images a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, value in enumerate(values):
        record = Record(f"{prefix}/p{row // 3}/im{row:05d}.dcm", value)
        (folder / f"im{row:05d}.tfrecord").write_bytes(encode_record(record))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_example(folder: Path, n: int = 300, size: int = 24, distance: float = 2.5) -> None:
    """Writes `data/outputs/` and `data/labels.csv`, two heads, the second with blanks."""
    values, labels = clouds(n, size, distance)
    write_records(folder / "data/outputs", values)
    second = (values[:, 0] > np.median(values[:, 0])).astype(int)
    write_csv(
        folder / "data/labels.csv",
        [
            {
                "image_id": f"im{row:05d}",
                "split": SPLITS[row // 3 % len(SPLITS)],
                "patient_id": f"p{row // 3}",
                "AIRSPACE_OPACITY": int(labels[row]),
                "EFFUSION": "" if row % 7 == 0 else second[row],
                "sex": "FM"[row // 3 % 2],
            }
            for row in range(n)
        ],
    )
