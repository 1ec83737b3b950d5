"""Outputs of the main job, written record by record, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cxr_embed.elements import dicom_id_of
from cxr_embed.records import Record, encode_record

SIZE = 8


def values(rows: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, size), np.float32)


def write_output(
    folder: Path, image_ids: list[str], embeddings: np.ndarray, mirror: bool = False
) -> None:
    """Writes records as the main job does, flat or below the inputs' folders."""
    for image_id, embedding in zip(image_ids, embeddings, strict=True):
        below = Path(image_id).parent if mirror else Path()
        path = folder / below / f"{dicom_id_of(image_id)}.tfrecord"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_record(Record(image_id, embedding)))


def mimic_path(number: int, study: int | None = None) -> str:
    """A path as MIMIC has them; two images a study."""
    subject, study = 10_000_000 + number // 4, study or 50_000_000 + number // 2
    return f"files/p10/p{subject}/s{study}/{number:08x}-0000.dcm"
