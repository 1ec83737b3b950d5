"""Parquet shards of embeddings, read and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cxr_embed.embeddings.mimic_paths import mimic_ids
from cxr_embed.embeddings.parts import Names, Parts
from cxr_embed.errors import UsageError, one_line
from cxr_embed.records import utf8_text

ID_COLUMN, IMAGE_COLUMN, EMBEDDING_COLUMN = "dicom_id", "image_id", "embedding"

# One row group is what a scan reads at a time: 16 MB of 4,096 floats.
ROWS_PER_GROUP = 1024


def parquet_parts(path: str, files: Sequence[str]) -> Parts:
    """Takes Parquet files apart into row groups.

    Args:
        path: as the user gave it, for messages.
        files: local paths.

    Raises:
        UsageError: not Parquet, or without the columns that are needed.
    """
    parts: list[RowGroup] = []
    sizes: dict[int, str] = {}
    for file in files:
        reader = _open(file)
        parts += [
            RowGroup(file, group, reader.metadata.row_group(group).num_rows)
            for group in range(reader.metadata.num_row_groups)
        ]
        sizes.setdefault(_embedding_size(file, reader), file)
    if len(sizes) > 1:
        raise UsageError(f"{path} holds embeddings of several sizes: {sorted(sizes)}")
    return Parts(path, "parquet", next(iter(sizes)), parts)


def _open(file: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{file} cannot be read as Parquet: {one_line(error)}") from error


def _embedding_size(file: str, reader: Any) -> int:
    import pyarrow as pa

    schema = reader.schema_arrow
    absent = {ID_COLUMN, IMAGE_COLUMN, EMBEDDING_COLUMN} - set(schema.names)
    if absent:
        raise UsageError(f"{file} has no column {', '.join(sorted(absent))}")
    kind = schema.field(EMBEDDING_COLUMN).type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):  # other writers' habit
        first = next(reader.iter_batches(1, columns=[EMBEDDING_COLUMN]), None)
        if first is not None and first.column(0)[0].is_valid:
            return len(first.column(0)[0])
    raise UsageError(f"{file}: the column {EMBEDDING_COLUMN} holds {kind}, not lists of floats")


@dataclass(frozen=True)
class RowGroup:
    """A part: one row group of one file."""

    threads: ClassVar[int] = 2
    file: str
    group: int
    rows: int

    def dicom_ids(self) -> list[str]:
        """Returns the column of ids."""
        return self._table([ID_COLUMN]).column(ID_COLUMN).to_pylist()

    def read(self, out: np.ndarray) -> Names:
        """Reads all rows into `out`; see `parts.Part`."""
        table = self._table([ID_COLUMN, IMAGE_COLUMN, EMBEDDING_COLUMN])
        start = 0
        for chunk in table.column(EMBEDDING_COLUMN).chunks:
            flat = chunk.flatten()
            if chunk.null_count or flat.null_count or len(flat) != len(chunk) * out.shape[1]:
                raise UsageError(f"{self.file}: embeddings are missing or differ in size")
            values = flat.to_numpy(zero_copy_only=False)
            out[start : start + len(chunk)] = values.reshape(len(chunk), -1)
            start += len(chunk)
        return Names(table.column(ID_COLUMN).to_pylist(), table.column(IMAGE_COLUMN).to_pylist())

    def _table(self, columns: list[str]) -> Any:
        import pyarrow as pa

        # A reader a part: one reader cannot serve two threads.
        reader = _open(self.file)
        try:
            return reader.read_row_group(self.group, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{self.file} is damaged: {one_line(error)}") from error
        finally:
            reader.close()


def parquet_schema(embedding_size: int, dtype: str, metadata: dict[str, str]) -> Any:
    """Returns the columns that `pack` writes.

    Args:
        embedding_size: floats in an embedding.
        dtype: `float32` or `float16`.
        metadata: kept in each file.
    """
    import pyarrow as pa

    value = pa.float16() if dtype == "float16" else pa.float32()
    # Nothing may be missing: a level less for each float, and twice the speed of reading.
    element = pa.field("element", value, nullable=False)
    return pa.schema(
        [
            pa.field(ID_COLUMN, pa.string(), nullable=False),
            pa.field(IMAGE_COLUMN, pa.string(), nullable=False),
            pa.field("subject_id", pa.int64()),
            pa.field("study_id", pa.int64()),
            pa.field(EMBEDDING_COLUMN, pa.list_(element, embedding_size), nullable=False),
        ],
        metadata=metadata,
    )


def encode_parquet(names: Names, values: np.ndarray, schema: Any) -> bytes:
    """Returns one shard's bytes; the same rows always give the same.

    Args:
        names: of the rows.
        values: (rows, d), of the schema's type.
        schema: from `parquet_schema`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [mimic_ids(image_id) for image_id in names.image_ids]
    flat = pa.array(values.reshape(-1), schema.field(EMBEDDING_COLUMN).type.value_type)
    table = pa.table(
        [
            pa.array([utf8_text(name) for name in names.dicom_ids], pa.string()),
            pa.array([utf8_text(name) for name in names.image_ids], pa.string()),
            pa.array([i.subject_id if i else None for i in ids], pa.int64()),
            pa.array([i.study_id if i else None for i in ids], pa.int64()),
            pa.FixedSizeListArray.from_arrays(flat, type=schema.field(EMBEDDING_COLUMN).type),
        ],
        schema=schema,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_PER_GROUP,
        # A dictionary of floats that never repeat costs three quarters of the speed, for nothing.
        use_dictionary=False,
        compression=dict.fromkeys(schema.names[:-1], "zstd"),
        write_statistics=schema.names[:-1],
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())
