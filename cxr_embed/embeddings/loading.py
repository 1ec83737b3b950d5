"""Embeddings back from outputs and packed files; TensorFlow is not needed."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.opening import open_parts
from cxr_embed.embeddings.parts import Filtered, Part, read_parts
from cxr_embed.embeddings.vectors import allocate
from cxr_embed.errors import UsageError

# Of the largest float of an embedding: two machines round differently, by less than this.
_SAME = 1e-3

Path = str | os.PathLike[str]


def load_embeddings(
    path: Path | Sequence[Path],
    ids: Collection[str] | None = None,
    *,
    missing: Literal["error", "ignore"] = "error",
    mixed_settings: bool = False,
) -> Embeddings:
    """Reads embeddings into memory.

    Args:
        path: an output of the main job (a folder of records, those below it included), one
            record, or what `cxr-embed pack` wrote (a folder or one file, Parquet, .npz or
            TFRecord shards); local or in a bucket. Or a list of these, such as sets that
            were made at different times: see `merge` for images that are in several.
        ids: only these dicom ids. Of records, only theirs are opened.
        missing: whether an id that is not there is an error.
        mixed_settings: accept several sets that were made with different settings.

    Returns:
        All embeddings, in the order of the paths and of the records' paths. The matrix of one
        path is allocated once and read into.

    Raises:
        UsageError: nothing there, something damaged, embeddings of different sizes, an id that is
            missing, an image that has different embeddings in two sets, or sets that were made
            with different settings.
    """
    names = [os.fspath(one) for one in ([path] if isinstance(path, str | os.PathLike) else path)]
    wanted = None if ids is None else frozenset(ids)
    if len(names) > 1:
        from cxr_embed.embeddings.fingerprints import common_fingerprint

        common_fingerprint(names, mixed_settings)
    sets = [_load_one(name, wanted) for name in names]
    found = sets[0] if len(sets) == 1 else merge(names, sets)[0]
    if wanted is not None and missing == "error":
        absent = sorted(wanted.difference(found.ids))
        if absent:
            raise UsageError(
                f"{', '.join(names)} has no embedding of {len(absent)} of {len(wanted)} ids, such "
                f"as {absent[0]}; missing='ignore' leaves them out"
            )
    return found


def _load_one(path: str, wanted: frozenset[str] | None) -> Embeddings:
    with open_parts(path, wanted) as found:
        parts: list[Part] = list(found.parts)
        if wanted is not None:
            parts = [Filtered(part, wanted) for part in parts]
        values = allocate(sum(part.rows for part in parts), found.embedding_size)
        dicom_ids, image_ids = read_parts(parts, values)
    return Embeddings(dicom_ids, image_ids, values)


def merge(names: Sequence[str], sets: Sequence[Embeddings]) -> tuple[Embeddings, np.ndarray]:
    """Makes one set of several.

    An image is known by its dicom id, or, where a set has a dicom id twice (an output with
    folders), by its path. One that is in several sets with the same embedding is taken from the
    first of them.

    Args:
        names: of the sets, for messages.
        sets: the embeddings, at least one set.

    Returns:
        The embeddings, and for each row the number of its set, int64 (n,).

    Raises:
        UsageError: embeddings of different sizes, or an image that has different embeddings in
            two sets.
    """
    for name, one in zip(names, sets, strict=True):
        if one.values.shape[1] != sets[0].values.shape[1]:
            raise UsageError(
                f"{names[0]} holds embeddings of {sets[0].values.shape[1]} floats, {name} of "
                f"{one.values.shape[1]}: they are of different models"
            )
    by_id = all(len(set(one.ids)) == len(one.ids) for one in sets)
    first: dict[str, tuple[int, int]] = {}
    kept: list[list[int]] = []
    for number, one in enumerate(sets):
        kept.append([])
        for row, key in enumerate(one.ids if by_id else one.image_ids):
            place = first.setdefault(key, (number, row))
            if place[0] == number:
                kept[number].append(row)
            elif not _alike(sets[place[0]].values[place[1]], one.values[row]):
                raise UsageError(
                    f"{key} has different embeddings in {names[place[0]]} "
                    f"({sets[place[0]].image_ids[place[1]]}) and {names[number]} "
                    f"({one.image_ids[row]}): remove one of them, or pass one of the two sets"
                )
    counts = [len(rows) for rows in kept]
    values = allocate(sum(counts), sets[0].values.shape[1])
    start = 0
    for one, rows in zip(sets, kept, strict=True):
        np.take(one.values, rows, axis=0, out=values[start : start + len(rows)])
        start += len(rows)
    pairs = list(zip(sets, kept, strict=True))
    found = Embeddings(
        [one.ids[row] for one, rows in pairs for row in rows],
        [one.image_ids[row] for one, rows in pairs for row in rows],
        values,
    )
    return found, np.repeat(np.arange(len(sets)), counts)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two embeddings are the same but for rounding."""
    return bool(np.abs(one - other).max() <= _SAME * np.abs(one).max())
