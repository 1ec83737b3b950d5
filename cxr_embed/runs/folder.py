"""The folder that each run leaves in its output: `_runs/<UTC time>-<short id>/`."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cxr_embed import storage
from cxr_embed.elements import RUNS_FOLDER

MANIFEST = "manifest.json"

# Rows of a run that has not merged them to tables yet.
SHARDS_FOLDER = "shards"


def new_run_id() -> str:
    """Returns `<UTC time>-<short id>`; names sort by time."""
    now = datetime.datetime.now(datetime.UTC)
    # Milliseconds: a run that has nothing to do ends within the second it began in.
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{uuid.uuid4().hex[:6]}"


def run_folder(output_path: str, run_id: str) -> str:
    """Returns where a run's tables and manifest go."""
    return storage.join(output_path, RUNS_FOLDER, run_id)


@dataclass
class RunFiles:
    """The files of one run, as a listing shows them.

    Attributes:
        folder: the run's folder.
        names: paths below it.
    """

    folder: str
    names: set[str] = field(default_factory=set)

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.folder.rstrip("/").rpartition("/")[2]

    @property
    def shards(self) -> list[str]:
        """Rows that are not merged into tables: those of a run that was killed or goes on."""
        prefix = f"{SHARDS_FOLDER}/"
        return sorted(
            storage.join(self.folder, *name.split("/"))
            for name in self.names
            if name.startswith(prefix) and name.endswith(".csv")
        )


def runs_in(output_path: str, paths: Iterable[str] | None = None) -> list[RunFiles]:
    """Returns the runs into an output, the oldest first.

    Args:
        output_path: the output.
        paths: its files as paths below it; listed here if None.
    """
    if paths is None:
        below = storage.list_paths(storage.join(output_path, RUNS_FOLDER))
        paths = (f"{RUNS_FOLDER}/{path}" for path in below)
    found: dict[str, RunFiles] = {}
    for path in paths:
        first, _, rest = path.partition("/")
        run_id, _, name = rest.partition("/")
        if first == RUNS_FOLDER and name:
            files = found.setdefault(run_id, RunFiles(run_folder(output_path, run_id)))
            files.names.add(name)
    return [found[run_id] for run_id in sorted(found)]


def write_manifest(folder: str, manifest: dict[str, Any]) -> None:
    """Writes `manifest.json`."""
    data = json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"
    storage.write_whole(storage.join(folder, MANIFEST), data.encode(), replace=True)


def read_manifest(folder: str) -> dict[str, Any]:
    """Returns a run's manifest; empty where it is missing or damaged."""
    try:
        found = json.loads(storage.read_bytes(storage.join(folder, MANIFEST)))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
