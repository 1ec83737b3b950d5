"""Embeddings back from an output, ready for NumPy; TensorFlow is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from cxr_embed import storage
from cxr_embed.errors import UsageError
from cxr_embed.outputs import RUNS_FOLDER
from cxr_embed.records import BadRecord, Record, decode_record
from cxr_embed.sources import RECORD_SUFFIX


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of many images, row by row.

    Attributes:
        ids: dicom ids, the record files' names.
        image_ids: paths or URIs of the inputs, the feature `image/id`.
        values: float32 of shape (n, d).
    """

    ids: list[str]
    image_ids: list[str]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def load_embeddings(path: str) -> Embeddings:
    """Reads a folder of records, local or gs://, folders below it included.

    Args:
        path: an output of the main job, or one record file.

    Returns:
        All embeddings, sorted by the records' paths.

    Raises:
        UsageError: no records there, a damaged one, or embeddings of different sizes.
    """
    try:
        names = _record_names(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error}") from error
    if not names:
        raise UsageError(f"no {RECORD_SUFFIX} files in {path}")
    first = _read(names[0])
    values = np.empty((len(names), len(first.embedding)), np.float32)
    image_ids: list[str] = []
    read = storage.in_parallel(_read, names) if storage.is_remote(path) else map(_read, names)
    for row, record in enumerate(read):
        if len(record.embedding) != values.shape[1]:
            raise UsageError(
                f"{names[row]} has {len(record.embedding)} floats, {names[0]} has "
                f"{values.shape[1]}: these are embeddings of two models"
            )
        values[row] = record.embedding
        image_ids.append(record.image_id)
    ids = [PurePosixPath(name).name.removesuffix(RECORD_SUFFIX) for name in names]
    return Embeddings(ids, image_ids, values)


def _record_names(path: str) -> list[str]:
    if path.endswith(RECORD_SUFFIX):
        return [path]
    return sorted(
        storage.join(path, entry.path)
        for entry in storage.list_files(path)
        if entry.path.endswith(RECORD_SUFFIX) and not entry.path.startswith(f"{RUNS_FOLDER}/")
    )


def _read(name: str) -> Record:
    try:
        return decode_record(storage.read_bytes(name))
    except BadRecord as error:
        raise UsageError(
            f"{name} is damaged: {error}; run the main job again to mend it"
        ) from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}") from error
