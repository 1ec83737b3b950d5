"""Writes shards of packed embeddings; reads the next shard while one is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_embed import storage
from cxr_embed.datasets.sums import digest
from cxr_embed.embeddings.parts import SHARD_NAME, Names, Part, read_parts
from cxr_embed.embeddings.vectors import normalise
from cxr_embed.errors import UsageError, cannot_be_written
from cxr_embed.records import Record, encode_record

# A separate folder, since many readers treat all files of a folder as data, even README.md.
DATA_FOLDER = "data"
NPZ_NAME = f"{DATA_FOLDER}/embeddings.npz"

# Increased whenever the same records give other bytes.
PACK_VERSION = 1

Advance = Callable[[int], None]
Encode = Callable[[Names, np.ndarray], bytes]


@dataclass(frozen=True)
class Plan:
    """The values that determine the bytes of the shards; stored beside them as `_pack.json`.

    Attributes:
        format: `parquet`, `npz` or `tfrecord`.
        dtype: `float32` or `float16`.
        normalised: whether rows are scaled to length 1.
        rows: number of embeddings.
        embedding_size: floats in each embedding.
        rows_per_shard: rows of the largest shard.
        files_sha256: hash of the names of the input files.
        fingerprint: fingerprint of the records; None if unknown.
        pack_version: version of the code that writes shards.
    """

    format: str
    dtype: str
    normalised: bool
    rows: int
    embedding_size: int
    rows_per_shard: int
    files_sha256: str
    fingerprint: dict[str, Any] | None
    pack_version: int = PACK_VERSION


@dataclass
class Result:
    """Result of packing.

    Attributes:
        plan: the plan.
        written: number of files that were written.
        kept: number of files that existed already.
        bytes_on_disk: size of all files.
        digests: SHA-256 of the files by name.
    """

    plan: Plan
    written: int = 0
    kept: int = 0
    bytes_on_disk: int = 0
    digests: dict[str, str] = field(default_factory=dict)


def is_shard(path: str) -> bool:
    """Whether a path below a packed folder is that of a file of embeddings."""
    folder, _, name = path.rpartition("/")
    return path == NPZ_NAME or (folder == DATA_FOLDER and SHARD_NAME.fullmatch(name) is not None)


def _shard_name(number: int, count: int, suffix: str) -> str:
    return f"{DATA_FOLDER}/embeddings-{number:05d}-of-{count:05d}.{suffix}"


class ShardWriter:
    """Writes shards into a folder.

    Args:
        folder: the output, local or in a bucket.
        plan: the plan.
        existing: names of the shards that exist already.
        advance: called with the number of rows that were added.
    """

    def __init__(
        self, folder: str, plan: Plan, existing: Collection[str], advance: Advance
    ) -> None:
        self.result = Result(plan)
        self._folder = folder
        self._plan = plan
        self._existing = existing
        self._advance = advance

    def write(self, shards: Sequence[Sequence[Part]]) -> Result:
        """Writes all shards.

        Args:
            shards: the parts of each shard.

        Raises:
            UsageError: a file cannot be read or written, or an embedding is not finite.
        """
        if self._plan.format == "npz":
            parts = [part for shard in shards for part in shard]
            if not self._keep(NPZ_NAME, self._plan.rows):
                self._write_npz(parts)
            return self.result
        encode = _encoder(self._plan)
        with ThreadPoolExecutor(1) as pool:
            writing: Future[None] | None = None
            for number, shard in enumerate(shards):
                name = _shard_name(number, len(shards), self._plan.format)
                if self._keep(name, sum(part.rows for part in shard)):
                    continue
                names, values = self._read(shard)
                if writing is not None:
                    writing.result()
                writing = pool.submit(self._write_shard, name, encode, names, values)
            if writing is not None:
                writing.result()
        return self.result

    def _keep(self, name: str, rows: int) -> bool:
        if name not in self._existing:
            return False
        self.result.digests[name], size = digest(storage.join(self._folder, name))
        self.result.kept += 1
        self.result.bytes_on_disk += size
        self._advance(rows)
        return True

    def _read(self, parts: Sequence[Part]) -> tuple[Names, np.ndarray]:
        rows = sum(part.rows for part in parts)
        values = np.empty((rows, self._plan.embedding_size), np.float32)
        names = read_parts(parts, values)
        return names, converted(values, names, self._plan)

    def _write_shard(self, name: str, encode: Encode, names: Names, values: np.ndarray) -> None:
        data = encode(names, values)
        path = storage.join(self._folder, name)
        try:
            storage.write_whole(path, data)
        except OSError as error:
            raise cannot_be_written(path, error) from error
        self._count(name, hashlib.sha256(data).hexdigest(), len(data))
        self._advance(len(values))

    def _write_npz(self, parts: Sequence[Part]) -> None:
        from cxr_embed.embeddings.npz import write_npz

        def blocks() -> Iterator[tuple[Names, np.ndarray]]:
            for part in parts:
                yield self._read([part])
                self._advance(part.rows)

        path = storage.join(self._folder, NPZ_NAME)
        shape = (self._plan.rows, self._plan.embedding_size)
        try:
            with storage.open_whole(path) as file:
                write_npz(file, blocks(), shape, self._plan.dtype)
                size = file.seek(0, 2)
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            raise cannot_be_written(path, error) from error
        self._count(NPZ_NAME, sha256, size)

    def _count(self, name: str, sha256: str, size: int) -> None:
        self.result.digests[name] = sha256
        self.result.written += 1
        self.result.bytes_on_disk += size


def _encoder(plan: Plan) -> Encode:
    if plan.format == "tfrecord":
        return lambda names, values: b"".join(
            encode_record(Record(image_id, row))
            for image_id, row in zip(names.image_ids, values, strict=True)
        )
    from cxr_embed.embeddings import parquet

    metadata = {
        "cxr_embed.normalised": json.dumps(plan.normalised),
        "cxr_embed.runs.fingerprint": json.dumps(plan.fingerprint, sort_keys=True),
    }
    schema = parquet.parquet_schema(plan.embedding_size, plan.dtype, metadata)
    return lambda names, values: parquet.encode_parquet(names, values, schema)


def converted(values: np.ndarray, names: Names, plan: Plan) -> np.ndarray:
    """Returns rows scaled and cast according to the plan; may change them in place.

    Raises:
        UsageError: an embedding is not finite, or too large for the dtype.
    """
    is_finite = np.isfinite(values).all(axis=1)
    if not is_finite.all():
        bad = names.image_ids[int(np.argmin(is_finite))]
        raise UsageError(
            f"the embedding of {bad} is not finite: cxr-embed verify --repair removes such records"
        )
    if plan.normalised:
        normalise(values)
    if plan.dtype == "float32":
        return values
    with np.errstate(over="ignore"):
        narrow = values.astype(plan.dtype)
    fits = np.isfinite(narrow).all(axis=1)
    if not fits.all():
        bad = names.image_ids[int(np.argmin(fits))]
        raise UsageError(
            f"the embedding of {bad} is too large for {plan.dtype}: pass --normalise, or remove "
            "--dtype"
        )
    return narrow
