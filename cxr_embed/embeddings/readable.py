"""Reads what is readable of an output in any state; the rest is listed with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cxr_embed import storage
from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.loading import load_embeddings
from cxr_embed.embeddings.neighbours import blocks
from cxr_embed.embeddings.opening import (
    embedding_files,
    is_embedding_file,
    kind_of,
    open_parts,
    refuse_unfinished,
)
from cxr_embed.embeddings.record_decoder import RecordDecoder, WrongSize
from cxr_embed.embeddings.record_files import read_files, record_name, row_bytes, usual_size
from cxr_embed.embeddings.vectors import allocate
from cxr_embed.errors import UsageError
from cxr_embed.records import BadRecord


class Damaged(NamedTuple):
    """A file, or an image in a packed file, whose embedding cannot be used, and the reason."""

    path: str
    reason: str


def load_readable(path: str, size: int | None = None) -> tuple[Embeddings, list[Damaged]]:
    """Reads the embeddings that can be used.

    Args:
        path: as for `load_embeddings`; it may also be a folder without embeddings.
        size: floats in an embedding; None takes what most of the first records have.

    Returns:
        The usable embeddings, possibly none, and what cannot be used.

    Raises:
        UsageError: `path` cannot be listed.
    """
    try:
        found = load_embeddings(path)
        damaged: list[Damaged] = []
    except UsageError:
        found, damaged = _read_one_by_one(path, size)
    finite = [np.isfinite(block).all(axis=1) for _, block in blocks(found.values)]
    is_finite = np.concatenate(finite) if finite else np.empty(0, bool)
    if is_finite.all():
        return found, damaged
    damaged += [
        Damaged(found.image_ids[row], "the embedding holds NaN or infinity")
        for row in np.flatnonzero(~is_finite)
    ]
    return found.take(is_finite), damaged


def _read_one_by_one(path: str, size: int | None) -> tuple[Embeddings, list[Damaged]]:
    is_file = is_embedding_file(path)
    files = sorted(embedding_files(path))
    names = [path if is_file else storage.join(path, file) for file in files]
    kinds = sorted({kind_of(name) for name in names})
    if not names:
        return Embeddings([], [], np.empty((0, size or 0), np.float32)), []
    damaged = []
    kind = "records" if "records" in kinds else kinds[0]
    if len(kinds) > 1:
        names = [name for name in names if kind_of(name) == kind]
        words = f"it holds embeddings of several kinds ({', '.join(kinds)}): only {kind} were read"
        damaged.append(Damaged(path, words))
    if kind == "records":
        found, more = _read_records(names, size or usual_size(names))
    else:
        try:
            refuse_unfinished(path, [] if is_file else files)
        except UsageError as error:
            damaged.append(Damaged(path, str(error)))
        found, more = _read_packed(names)
    return found, damaged + more


def _read_records(names: Sequence[str], size: int) -> tuple[Embeddings, list[Damaged]]:
    values = allocate(len(names), max(size, 1))
    decoder, rows = RecordDecoder(max(size, 1)), row_bytes(values)
    ids: list[str] = []
    image_ids: list[str] = []
    damaged = []
    row = next(rows)
    for name, data in zip(names, read_files(names), strict=True):
        try:
            if isinstance(data, OSError):
                raise data
            image_ids.append(decoder.decode(data, row))
        except OSError as error:
            damaged.append(Damaged(name, f"it cannot be read: {error.strerror or error}"))
        except WrongSize as error:
            damaged.append(Damaged(name, f"{error.size:,} floats; the others have {size:,}"))
        except BadRecord as error:
            damaged.append(Damaged(name, str(error)))
        else:
            ids.append(record_name(name))
            row = next(rows, row)
    return Embeddings(ids, image_ids, values[: len(ids), : size or None]), damaged


def _read_packed(names: Sequence[str]) -> tuple[Embeddings, list[Damaged]]:
    ids: list[str] = []
    image_ids: list[str] = []
    blocks_: list[np.ndarray] = []
    damaged = []
    for name in names:
        try:
            with open_parts(name) as opened:
                for part in opened.parts:
                    block = np.empty((part.rows, opened.embedding_size), np.float32)
                    if blocks_ and block.shape[1] != blocks_[0].shape[1]:
                        raise UsageError(
                            f"{block.shape[1]:,} floats; the others have {blocks_[0].shape[1]:,}"
                        )
                    found = part.read(block)
                    ids += found.dicom_ids
                    image_ids += found.image_ids
                    blocks_.append(block)
        except UsageError as error:
            damaged.append(Damaged(name, str(error).removeprefix(f"{name} ")))
    values = np.concatenate(blocks_) if blocks_ else np.empty((0, 0), np.float32)
    return Embeddings(ids, image_ids, values), damaged
