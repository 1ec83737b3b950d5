"""Writes, merges and reads the run tables `embedded`, `skipped` and `failures`.

Each process appends its rows to its own shard every few seconds and at the end of each bundle. A
killed run therefore loses only the rows of its last seconds, and no step holds all rows. A bundle
that a runner repeats writes its rows twice; the merge keeps one row per image.

The merge sorts in SQLite, which spills to disk, so its memory does not grow with the number of
rows.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr_embed import storage
from cxr_embed.errors import MachineFault, one_line
from cxr_embed.faults import machine_fault
from cxr_embed.outcomes import Embedded, Failed, Outcome, Stage
from cxr_embed.runs.folder import SHARDS_FOLDER, RunFiles, run_folder

# In order of precedence, the last one highest: if a bundle was repeated, an image with a record
# counts as embedded.
TABLES: dict[str, tuple[str, ...]] = {
    "failures": ("dicom_id", "path", "stage", "reason", "detail"),
    "skipped": ("dicom_id", "path", "reason", "detail"),
    "embedded": (
        "dicom_id", "path", "record", "rows", "columns", "warnings", "bytes", "crc32c", "floats",
        "file_state",
    ),
}  # fmt: skip

Row = dict[str, str]

# Maximum time until a row is stored. In a bucket, each flush writes one object.
FLUSH_SECONDS, FLUSH_SECONDS_REMOTE = 2.0, 5.0


def table_of(outcome: Outcome) -> str:
    """Returns the table that an outcome belongs to."""
    if isinstance(outcome, Embedded):
        return "embedded"
    return "failures" if isinstance(outcome, Failed) else "skipped"


def row_of(outcome: Outcome) -> list[Any]:
    """Returns an outcome's cells, in the order of its table's columns."""
    columns = TABLES[table_of(outcome)]
    cells = (getattr(outcome, column) for column in columns)
    return [" ".join(cell) if isinstance(cell, tuple) else cell for cell in cells]


class ShardWriter:
    """Stores the rows of one process; thread-safe.

    Args:
        folder: the run's folder.

    Raises:
        MachineFault: rows cannot be stored.
    """

    def __init__(self, folder: str) -> None:
        self._folder = storage.join(folder, SHARDS_FOLDER)
        self._is_remote = storage.is_remote(folder)
        self._seconds = FLUSH_SECONDS_REMOTE if self._is_remote else FLUSH_SECONDS
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._timer: threading.Timer | None = None
        self._error: BaseException | None = None
        self._name = uuid.uuid4().hex
        self._count = 0

    def add(self, outcome: Outcome) -> None:
        """Adds a row; it is stored within a few seconds."""
        line = _csv_line([table_of(outcome), *row_of(outcome)])
        with self._lock:
            self._raise_late_error()
            self._waiting.append(line)
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Stores all rows that were added."""
        with self._lock:
            self._raise_late_error()
            self._store()

    def _flush_late(self) -> None:
        with self._lock:
            try:
                self._store()
            except BaseException as error:
                self._error = error

    def _raise_late_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _store(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        path = storage.join(self._folder, f"{self._name}.csv")
        try:
            if self._is_remote:
                self._count += 1
                numbered = storage.join(self._folder, f"{self._name}-{self._count:06d}.csv")
                storage.write_whole(numbered, data)
            else:
                _append(path, data)
        except OSError as error:
            # Always a machine's fault: a shard's name does not depend on any image.
            fault = machine_fault(error, Stage.WRITE, path)
            raise fault or MachineFault(f"{path}: cannot be written: {one_line(error)}") from error
        self._waiting.clear()


def _append(path: str, data: bytes) -> None:
    """Appends to a local file, all or nothing, and syncs it to disk."""
    for attempt in range(2):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            break
        except FileNotFoundError:
            if attempt:
                raise
            Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        size = os.fstat(handle).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            # A full disk may accept a part. The next append must not continue a partial line.
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


_writers: dict[tuple[str, str], ShardWriter] = {}
_writers_lock = threading.Lock()


def writer_of(output_path: str, run_id: str) -> ShardWriter:
    """Returns this process's writer for a run."""
    with _writers_lock:
        if (output_path, run_id) not in _writers:
            if any(other != run_id for _, other in _writers):
                _writers.clear()  # one run at a time
            _writers[output_path, run_id] = ShardWriter(run_folder(output_path, run_id))
        return _writers[output_path, run_id]


@dataclass
class Counts:
    """Images by outcome.

    Attributes:
        embedded: images with a record of this run.
        skipped: images by reason.
        failed: images by reason.
    """

    embedded: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_counters(cls, counters: dict[str, int], output: str = "") -> Counts:
        """Returns the counts from the graph's counters. A repeated bundle counts twice.

        Args:
            counters: the counters by name.
            output: count only the records of this one of several outputs.
        """

        def by_reason(prefix: str) -> dict[str, int]:
            names = sorted(name for name in counters if name.startswith(prefix))
            return {name.removeprefix(prefix): counters[name] for name in names if counters[name]}

        embedded = counters.get(f"embedded/{output}" if output else "embedded", 0)
        return cls(embedded, by_reason("skipped/"), by_reason("failed/"))

    @property
    def total(self) -> int:
        """Images that have an outcome."""
        return self.embedded + sum(self.skipped.values()) + sum(self.failed.values())


def merge(files: RunFiles) -> Counts:
    """Merges a run's shards into sorted tables with one row per image; returns the counts.

    All tables are written, including empty ones. The merge may be repeated, also after an error.

    Raises:
        OSError: a shard cannot be read, a table cannot be written, or the sort has no disk space.
    """
    try:
        counts = _write_tables(files)
    except (sqlite3.Error, csv.Error) as error:
        raise OSError(f"the rows cannot be sorted: {one_line(error)}") from error
    for shard in files.shards:
        storage.remove(shard)
    if not storage.is_remote(files.folder):
        with contextlib.suppress(OSError):
            Path(files.folder, SHARDS_FOLDER).rmdir()
    return counts


def _write_tables(files: RunFiles) -> Counts:
    with contextlib.closing(sqlite3.connect("")) as database:
        database.execute(
            "CREATE TABLE outcomes "
            "(path BLOB PRIMARY KEY, rank INT, reason TEXT, line BLOB) WITHOUT ROWID"
        )
        database.executemany(
            "INSERT INTO outcomes VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
            "rank = excluded.rank, reason = excluded.reason, line = excluded.line "
            "WHERE excluded.rank >= rank",
            _ranked_rows(files),
        )
        for rank, table in enumerate(TABLES):
            lines = database.execute(
                "SELECT line FROM outcomes WHERE rank = ? ORDER BY line", (rank,)
            )
            name = storage.join(files.folder, f"{table}.csv")
            with storage.open_whole(name, replace=True) as file:
                file.write(_csv_line(TABLES[table]))
                for (line,) in lines:
                    file.write(line)
        return _counts(database)


def _ranked_rows(files: RunFiles) -> Iterator[tuple[bytes, int, str, bytes]]:
    ranks = {table: rank for rank, table in enumerate(TABLES)}
    merged = ((table, row) for table in TABLES for row in _merged_rows(files, table))
    for table, row in itertools.chain(merged, _shard_rows(files)):
        line = _csv_line(row.get(column, "") for column in TABLES[table])
        yield _bytes(row["path"]), ranks[table], row.get("reason", ""), line


def _counts(database: sqlite3.Connection) -> Counts:
    counts = Counts()
    query = "SELECT rank, reason, COUNT(*) FROM outcomes GROUP BY rank, reason ORDER BY reason"
    names = list(TABLES)
    for rank, reason, number in database.execute(query):
        if names[rank] == "embedded":
            counts.embedded = number
        else:
            by_reason = counts.failed if names[rank] == "failures" else counts.skipped
            by_reason[reason] = number
    return counts


def csv_line(row: Iterable[Any]) -> str:
    """Returns cells as one line of CSV with a line feed."""
    buffer = io.StringIO()
    # Python 3.11 quotes a cell with a carriage return only if the line terminator has one.
    csv.writer(buffer, lineterminator="\r\n").writerow(row)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def read_table(files: RunFiles, table: str) -> Iterator[Row]:
    """Yields a table's rows: those of the merged table, then those of the remaining shards.

    A table of an older version lacks some columns. A truncated row is left out.

    Raises:
        OSError: a file cannot be read.
    """
    yield from _merged_rows(files, table)
    yield from (row for kind, row in _shard_rows(files) if kind == table)


def _merged_rows(files: RunFiles, table: str) -> Iterator[Row]:
    if f"{table}.csv" in files.names:
        for row in csv.DictReader(_lines(storage.join(files.folder, f"{table}.csv"))):
            if row.get("path") and None not in row and None not in row.values():
                yield row


def _shard_rows(files: RunFiles) -> Iterator[tuple[str, Row]]:
    """Yields the rows of all shards, each with its table; each shard is read once."""
    for shard in files.shards:
        for table, *cells in filter(None, csv.reader(_lines(shard))):
            columns = TABLES.get(table, ())
            if columns and len(cells) == len(columns):
                yield table, dict(zip(columns, cells, strict=True))


def _lines(path: str) -> Iterator[str]:
    """Yields a file's complete lines; a killed process may have left a partial last line."""
    on_disk = storage.is_on_disk(path)
    with Path(path).open("rb") if on_disk else io.BytesIO(storage.read_bytes(path)) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _text(line)


def _csv_line(row: Iterable[Any]) -> bytes:
    return _bytes(csv_line(row))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # file names may be invalid UTF-8


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
