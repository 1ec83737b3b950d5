"""Packs many records into a few large files, and resumes after being killed.

The content of a shard depends only on the list of records and the plan. A shard that exists is
therefore kept if the plan beside it is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cxr_embed import storage
from cxr_embed.datasets.card import Packed, dataset_card
from cxr_embed.datasets.shards import Advance, Plan, Result, ShardWriter, is_shard
from cxr_embed.datasets.sums import SUMS_NAME, digest, write_sums
from cxr_embed.elements import CONFIG_NAME
from cxr_embed.embeddings.opening import open_parts, place_of_embeddings
from cxr_embed.embeddings.parts import Part, Parts
from cxr_embed.errors import UsageError
from cxr_embed.runs.fingerprint import (
    OutputConfig,
    read_output_config,
    write_output_config,
)
from cxr_embed.runs.history import read_manifests

FORMATS = ("parquet", "npz", "tfrecord")
DTYPES = ("float32", "float16")
PLAN_NAME, CARD_NAME = "_pack.json", "README.md"

# Two shards are in memory at a time: one is read while the other is written.
_SHARD_BYTES = 64 << 20

Log = Callable[[str], None]


@dataclass(frozen=True)
class Pack:
    """The user's settings: the flags of `cxr-embed pack`."""

    input_path: str
    output_path: str
    format: str = "parquet"
    dtype: str = "float32"
    normalise: bool = False
    overwrite: bool = False


def pack(wanted: Pack, log: Log, start: Callable[[int], Advance]) -> Result:
    """Packs embeddings.

    Args:
        wanted: the settings.
        log: logs one line for the user.
        start: gets the number of rows; returns a function that is called with the number of rows
            that were added.

    Raises:
        UsageError: the input or output cannot be used, or a record is damaged or not finite.
    """
    wanted = replace(wanted, input_path=place_of_embeddings(wanted.input_path))
    _check(wanted)
    config = read_output_config(wanted.input_path)
    with open_parts(wanted.input_path) as found:
        shards = _cut(found, wanted)
        plan = _plan(wanted, found, shards, config)
        existing = _prepare(wanted, plan, log)
        writer = ShardWriter(wanted.output_path, plan, existing, start(found.rows))
        result = writer.write(shards)
    _write_metadata(wanted, config, result)
    return result


def _check(wanted: Pack) -> None:
    if wanted.dtype == "float16" and wanted.format == "tfrecord":
        raise UsageError("--format=tfrecord supports float32 only: remove --dtype")
    problem = storage.why_not_writable(wanted.output_path)
    if problem:
        raise UsageError(f"--output_path {wanted.output_path} cannot be written to: {problem}")
    inside, outside = (_absolute(p) for p in (wanted.output_path, wanted.input_path))
    if f"{inside}/".startswith(f"{outside}/"):
        raise UsageError(
            f"--output_path {wanted.output_path} is inside --input_path: pass a folder beside it"
        )


def _absolute(path: str) -> str:
    return path.rstrip("/") if storage.is_remote(path) else str(Path(path).resolve())


def _cut(found: Parts, wanted: Pack) -> list[list[Part]]:
    """Groups parts into shards of about 64 MB."""
    row_bytes = found.embedding_size * np.dtype(wanted.dtype).itemsize
    limit = max(1, _SHARD_BYTES // row_bytes)
    shards: list[list[Part]] = []
    rows = limit
    for part in found.parts:
        if rows + part.rows > limit:
            shards.append([])
            rows = 0
        shards[-1].append(part)
        rows += part.rows
    return shards


def _plan(
    wanted: Pack, found: Parts, shards: Sequence[Sequence[Part]], config: OutputConfig | None
) -> Plan:
    names = hashlib.sha256()
    for file in found.files:
        names.update(file.encode("utf-8", "surrogateescape") + b"\n")
    return Plan(
        format=wanted.format,
        dtype=wanted.dtype,
        normalised=wanted.normalise,
        rows=found.rows,
        embedding_size=found.embedding_size,
        rows_per_shard=max(sum(part.rows for part in shard) for shard in shards),
        files_sha256=names.hexdigest(),
        fingerprint=config.fingerprint if config else None,
    )


def _prepare(wanted: Pack, plan: Plan, log: Log) -> set[str]:
    """Prepares the output; returns the existing shards of the same plan."""
    there = set(storage.list_paths(wanted.output_path))
    for path in list(there):
        if storage.is_temporary(PurePosixPath(path).name):
            storage.remove_if_abandoned(storage.join(wanted.output_path, path))
            there.discard(path)
    foreign = sorted(path for path in there if not _is_ours(path))
    if foreign:
        raise UsageError(
            f"--output_path {wanted.output_path} contains other files, such as {foreign[0]}: pass "
            "an empty folder"
        )
    plan_path = storage.join(wanted.output_path, PLAN_NAME)
    same = PLAN_NAME in there and _read_plan(plan_path) == json.loads(json.dumps(asdict(plan)))
    if same and not wanted.overwrite:
        existing = {path for path in there if is_shard(path)}
        if existing:
            log(f"{len(existing)} files exist already")
        return existing
    if SUMS_NAME in there and not wanted.overwrite:
        raise UsageError(
            f"--output_path {wanted.output_path} contains another packed data set: pass "
            "--overwrite to replace it"
        )
    # The list of sums is removed first: without it, the rest is not a complete data set.
    for path in sorted(there, key=lambda path: path != SUMS_NAME):
        storage.remove(storage.join(wanted.output_path, path))
    data = json.dumps(asdict(plan), indent=2, sort_keys=True) + "\n"
    storage.write_whole(plan_path, data.encode())
    return set()


def _read_plan(path: str) -> Any:
    try:
        return json.loads(storage.read_bytes(path))
    except (OSError, ValueError):
        return None


def _is_ours(path: str) -> bool:
    return is_shard(path) or path in (PLAN_NAME, CARD_NAME, SUMS_NAME, CONFIG_NAME)


def _write_metadata(wanted: Pack, config: OutputConfig | None, result: Result) -> None:
    """Writes card and fingerprint, and finally the sums, which mark the data set as complete."""
    plan = result.plan
    card = dataset_card(
        Packed(
            format=plan.format,
            dtype=plan.dtype,
            normalised=plan.normalised,
            rows=plan.rows,
            embedding_size=plan.embedding_size,
            shards=result.written + result.kept,
            bytes_on_disk=result.bytes_on_disk,
            fingerprint=plan.fingerprint,
            manifests=read_manifests(wanted.input_path),
        )
    )
    path = storage.join(wanted.output_path, CARD_NAME)
    if not storage.exists(path):  # the owner may have filled in the licence
        storage.write_whole(path, card.encode())
    if config:
        write_output_config(wanted.output_path, config)
    for name in (CARD_NAME, PLAN_NAME, *([CONFIG_NAME] if config else [])):
        result.digests[name], _ = digest(storage.join(wanted.output_path, name))
    write_sums(wanted.output_path, result.digests)
