"""The folder that each run leaves behind: its tables and its manifest."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import os
import platform
import uuid
from collections.abc import Iterable
from typing import Any

from cxr_embed import profiling, storage
from cxr_embed.monitor import kind_of
from cxr_embed.outcomes import Embedded, Failed, Outcome
from cxr_embed.outputs import RUNS_FOLDER

TABLES: dict[str, tuple[str, ...]] = {
    "embedded": ("dicom_id", "path", "record", "rows", "columns", "warnings"),
    "failures": ("dicom_id", "path", "stage", "reason", "detail"),
    "skipped": ("dicom_id", "path", "reason", "detail"),
}

_TABLE_OF_KIND = {"embedded": "embedded", "failed": "failures", "skipped": "skipped"}

_REPORTED_PACKAGES = ("cxr-embed", "apache-beam", "tensorflow", "pydicom", "numpy")


def new_run_id() -> str:
    """Returns `<UTC time>-<short id>`; names sort by time."""
    now = datetime.datetime.now(datetime.UTC)
    # Milliseconds: a run that has nothing to do ends within the second it began in.
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{uuid.uuid4().hex[:6]}"


def run_folder(output_path: str, run_id: str) -> str:
    """Returns where a run's tables and manifest go."""
    return storage.join(output_path, RUNS_FOLDER, run_id)


def table_row(outcome: Outcome) -> tuple[str, bytes]:
    """Returns the table that an outcome belongs to, and its row as one line of CSV.

    It is bytes, since a file name need not be text, and what crosses a shuffle has to be.
    """
    if isinstance(outcome, Embedded):
        row: tuple[Any, ...] = (
            outcome.dicom_id, outcome.path, outcome.record, outcome.rows, outcome.columns,
            " ".join(outcome.warnings),
        )  # fmt: skip
    elif isinstance(outcome, Failed):
        row = (outcome.dicom_id, outcome.path, outcome.stage, outcome.reason, outcome.detail)
    else:
        row = (outcome.dicom_id, outcome.path, outcome.reason, outcome.detail)
    return _TABLE_OF_KIND[kind_of(outcome)], _csv_line(row)


def write_lines(folder: str, name: str, lines: Iterable[bytes]) -> None:
    """Writes one of the run's CSV files, with a head if it is a table.

    The lines are sorted, so that two runs over the same images write the same.
    """
    columns = TABLES.get(name.removesuffix(".csv"))
    head = _csv_line(columns) if columns else b""
    storage.write_whole(storage.join(folder, name), head + b"".join(sorted(lines)))


def write_manifest(folder: str, manifest: dict[str, Any]) -> None:
    """Writes `manifest.json`."""
    data = json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"
    storage.write_whole(storage.join(folder, "manifest.json"), data.encode())


def write_profile(folder: str, sampler: profiling.Sampler, stages: dict[str, float]) -> None:
    """Writes where the time went: seconds by stage, the sampled stacks, and their picture."""
    whole = sum(stages.values()) or 1.0
    rows = [("stage", "seconds", "share")] + [
        (stage, f"{seconds:.3f}", f"{seconds / whole:.4f}")
        for stage, seconds in sorted(stages.items(), key=lambda item: -item[1])
    ]
    seconds = sampler.seconds
    title = "Seconds of all threads, waiting for work left out"
    for name, data in {
        "profile_stages.csv": b"".join(_csv_line(row) for row in rows),
        "profile_stacks.txt": profiling.collapsed(seconds).encode(),
        "profile.svg": profiling.flame_graph(seconds, title).encode(),
    }.items():
        storage.write_whole(storage.join(folder, name), data)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for name in _REPORTED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Returns what kind of machine this is; nothing that names it."""
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}


def _csv_line(row: Iterable[Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(row)
    return buffer.getvalue().encode("utf-8", "surrogateescape")
