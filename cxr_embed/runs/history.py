"""Reads the history of an output: manifests and tables of its runs, and the records' times."""

from __future__ import annotations

import contextlib
import csv
import datetime
import math
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxr_embed import storage
from cxr_embed.elements import RECORD_SUFFIX
from cxr_embed.runs.folder import RunFiles, read_manifest, runs_in
from cxr_embed.runs.tables import TABLES, read_table

_KIND_OF_TABLE = {"embedded": "embedded", "failures": "failed", "skipped": "skipped"}


@dataclass(frozen=True)
class Run:
    """One run: its files and its manifest, which is empty if missing or damaged."""

    files: RunFiles
    manifest: dict[str, Any]

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.files.run_id

    def number(self, *keys: str) -> float | None:
        """Returns a number of the manifest; None if there is none.

        Args:
            *keys: path of keys. Numbers below an object are added up.
        """
        value: Any = self.manifest
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            return sum(part for part in value.values() if _is_finite(part))
        return value if _is_finite(value) else None

    def count(self, outcome: str) -> int | None:
        """Returns the manifest's number of images with an outcome; None if it has none."""
        number = self.number("counts", outcome)
        return None if number is None else int(number)

    @property
    def command(self) -> str:
        """The command line, from the manifest; empty if unknown."""
        words = self.manifest.get("command")
        return shlex.join(map(str, words)) if isinstance(words, list) else ""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The run's fingerprint, from the manifest."""
        fingerprint = self.manifest.get("fingerprint")
        return fingerprint if isinstance(fingerprint, dict) else {}

    @property
    def started(self) -> datetime.datetime | None:
        """Start time."""
        return _time(self.manifest.get("started"))

    @property
    def finished(self) -> datetime.datetime | None:
        """End time."""
        return _time(self.manifest.get("finished"))


class End(NamedTuple):
    """The latest outcome of an image; see the tables in docs/outputs.md."""

    kind: str
    dicom_id: str
    reason: str = ""
    detail: str = ""
    rows: int = 0
    columns: int = 0
    warnings: str = ""


@dataclass
class Ends:
    """The latest outcomes of all images in any run table, by path."""

    by_path: dict[str, End] = field(default_factory=dict)
    damaged_tables: int = 0

    def kind_of(self, path: str) -> str:
        """Returns the latest outcome of an image; empty if the tables do not have it."""
        return self.by_path[path].kind if path in self.by_path else ""

    def count(self, kind: str) -> int:
        """Returns the number of images with this outcome."""
        return sum(end.kind == kind for end in self.by_path.values())

    def reasons(self, kind: str) -> list[tuple[str, int]]:
        """Returns reasons and their counts, most common first."""
        return Counter(e.reason for e in self.by_path.values() if e.kind == kind).most_common()

    def sizes(self) -> Counter[tuple[int, int]]:
        """Returns the number of embedded images for each (rows, columns)."""
        return Counter((e.rows, e.columns) for e in self.by_path.values() if e.rows)

    def warnings(self) -> list[tuple[str, int]]:
        """Returns the embedded images' warnings and their counts, most common first."""
        embedded = (e for e in self.by_path.values() if e.kind == "embedded")
        return Counter(code for e in embedded for code in e.warnings.split()).most_common()


def read_runs(output_path: str) -> list[Run]:
    """Returns the runs of an output, the oldest first; empty if it has none."""
    return [Run(files, read_manifest(files.folder)) for files in runs_in(output_path)]


def read_manifests(output_path: str) -> list[dict[str, Any]]:
    """Returns the manifests of an output's runs, the oldest first, without damaged ones."""
    return [run.manifest for run in read_runs(output_path) if run.manifest]


def read_ends(runs: list[Run]) -> Ends:
    """Reads the tables of all runs. A row of a later run replaces an earlier row of the image."""
    ends = Ends()
    for run in runs:
        for table in TABLES:  # in the order of precedence that `tables.merge` uses
            kind = _KIND_OF_TABLE[table]
            if f"{table}.csv" not in run.files.names and not run.files.shards:
                ends.damaged_tables += 1
                continue
            try:
                for row in read_table(run.files, table):
                    ends.by_path[row["path"]] = _end(kind, row)
            except (OSError, csv.Error):
                ends.damaged_tables += 1
    return ends


def _end(kind: str, row: dict[str, str]) -> End:
    return End(
        kind, row.get("dicom_id", ""), row.get("reason", ""), row.get("detail", ""),
        _number(row.get("rows")), _number(row.get("columns")), row.get("warnings", ""),
    )  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """Records of one run over time, by their write times.

    Attributes:
        run_id: the run.
        edges: float64 of shape (bins + 1,): seconds since the run's start.
        counts: int64 of shape (bins,): records written in each bin.
    """

    run_id: str
    edges: np.ndarray
    counts: np.ndarray

    @property
    def step(self) -> float:
        """Width of a bin in seconds."""
        return float(self.edges[1] - self.edges[0])


def record_times(output_path: str) -> np.ndarray:
    """Returns the records' modification times in seconds since 1970; empty if not on a disk."""
    if not storage.is_on_disk(output_path) or not Path(output_path).is_dir():
        return np.empty(0)
    times = []
    for path in storage.list_paths(output_path):
        if path.endswith(RECORD_SUFFIX):
            with contextlib.suppress(OSError):  # removed meanwhile, or a dangling link
                times.append(Path(output_path, path).stat().st_mtime)
    return np.array(times)


def paces(runs: list[Run], times: np.ndarray, *, most: int = 3, least: int = 20) -> list[Pace]:
    """Computes the speed of runs over time from the modification times of their records.

    A run is left out if over 10 % of its records have a time outside the run, because they were
    copied or written again.

    Args:
        runs: all runs of the output.
        times: the result of `record_times`.
        most: maximum number of runs to return; those with the most records are kept.
        least: minimum number of records that a run must have written.
    """
    found = []
    for run in runs:
        embedded = run.count("embedded") or 0
        if run.started is None or run.finished is None or embedded < least:
            continue
        # The manifest has whole seconds.
        begin, end = run.started.timestamp(), run.finished.timestamp() + 1
        own = times[(times >= begin) & (times <= end)]
        if len(own) < 0.9 * embedded:
            continue
        bins = int(np.clip(len(own) // 5, 5, 40))
        span = (0.0, max(float(own.max()) - begin, 1e-3))
        counts, edges = np.histogram(own - begin, bins, span)
        found.append((len(own), Pace(run.run_id, edges, counts)))
    found.sort(key=lambda item: -item[0])
    return sorted((pace for _, pace in found[:most]), key=lambda pace: pace.run_id)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _time(text: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
