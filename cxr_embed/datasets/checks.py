"""Checks for `verify`: of each record and embedding, and of all embeddings together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import google_crc32c
import numpy as np

from cxr_embed import storage
from cxr_embed.datasets.findings import Finding
from cxr_embed.elements import dicom_id_of
from cxr_embed.embeddings.record_decoder import RecordDecoder, WrongSize
from cxr_embed.embeddings.record_files import read_files, record_name, row_bytes
from cxr_embed.records import BadRecord, unframe


class Seen(NamedTuple):
    """A checked embedding: path of its file, dicom id, image id, and a hash of its floats."""

    path: str
    dicom_id: str
    image_id: str
    floats: tuple[int, bytes]


class Checked(NamedTuple):
    """Result of the checks of some embeddings."""

    seen: list[Seen]
    findings: list[Finding]


def check_records(
    folder: str, paths: Sequence[str], size: int, sums: Mapping[str, str] | None
) -> Checked:
    """Checks some record files.

    Args:
        folder: the output.
        paths: paths of the records below the output.
        size: required number of floats in an embedding.
        sums: SHA-256 by path below the output, or None if there is no list.
    """
    decoder = RecordDecoder(size)
    values = np.empty((len(paths), max(size, 1)), np.float32)
    rows = row_bytes(values)
    good: list[tuple[str, str, str]] = []
    findings: list[Finding] = []
    row = next(rows)
    for path, data in zip(paths, read_files([storage.join(folder, p) for p in paths]), strict=True):
        image_id, problem = _decode(path, data, decoder, row)
        if problem is None and sums is not None and isinstance(data, bytes):
            problem = _check_sum(path, data, sums)
        name = record_name(path)
        if problem is None and name != dicom_id_of(image_id):
            problem = Finding("wrong_name", path, f"it contains {image_id}")
        if problem is not None:
            findings.append(problem)
            continue
        good.append((path, name, image_id))
        row = next(rows, row)
    checked = check_rows(good, values[: len(good)])
    return Checked(checked.seen, findings + checked.findings)


def _decode(
    path: str, data: bytes | OSError, decoder: RecordDecoder, row: memoryview
) -> tuple[str, Finding | None]:
    if isinstance(data, OSError):
        return "", Finding("unreadable", path, data.strerror or str(data))
    try:
        example = unframe(data)
    except BadRecord as error:
        return "", Finding("torn", path, str(error))
    try:
        return decoder.decode_example(example, row), None
    except WrongSize as error:
        return "", Finding("wrong_size", path, f"{error.size} floats, not {decoder.embedding_size}")
    except BadRecord as error:
        return "", Finding("malformed", path, str(error))


def _check_sum(path: str, data: bytes, sums: Mapping[str, str]) -> Finding | None:
    wanted = sums.get(path)
    if wanted is None or hashlib.sha256(data).hexdigest() == wanted:
        return None
    return Finding("sum_mismatch", path)


def check_rows(names: Sequence[tuple[str, str, str]], values: np.ndarray) -> Checked:
    """Checks some embeddings.

    Args:
        names: (path of the file below the output, dicom id, image id) of each embedding.
        values: float32 of shape (n, d).
    """
    is_finite = np.isfinite(values).all(axis=1)
    is_constant = (values == values[:, :1]).all(axis=1) & (values.shape[1] > 1)
    seen: list[Seen] = []
    findings: list[Finding] = []
    for row, (path, name, image_id) in enumerate(names):
        if not is_finite[row]:
            findings.append(Finding("not_finite", path, image_id))
        elif is_constant[row]:
            findings.append(Finding("constant", path, image_id))
        else:
            floats = values[row].view(np.uint8)
            # 96 bits are enough for millions of embeddings and 100 times as fast as SHA-256.
            seen.append(
                Seen(path, name, image_id, (google_crc32c.value(floats), floats[:8].tobytes()))
            )
    return Checked(seen, findings)


def compare(seen: Sequence[Seen]) -> Iterator[Finding]:
    """Finds images that were embedded twice, equal ids, and equal embeddings.

    Args:
        seen: checked embeddings, sorted by path. Of two records of one image, the later one is
            reported as doubled.
    """
    image_of: dict[str, str] = {}
    id_of: dict[str, str] = {}
    floats_of: dict[tuple[int, bytes], str] = {}
    for path, name, image_id, floats in seen:
        if image_id in image_of:
            yield Finding("doubled", path, f"{image_of[image_id]} also contains {image_id}")
            continue
        image_of[image_id] = path
        if name in id_of:
            yield Finding("same_id", path, f"{image_id} and {id_of[name]}")
        if floats in floats_of:
            yield Finding("same_embedding", path, f"{image_id} and {floats_of[floats]}")
        id_of.setdefault(name, image_id)
        floats_of.setdefault(floats, image_id)
