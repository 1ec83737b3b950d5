"""The folder of a run inside its output: `_runs/<UTC time>-<short id>/`."""

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

# Holds a run's rows until they are merged into tables.
SHARDS_FOLDER = "shards"


def new_run_id() -> str:
    """Returns `<UTC time>-<short id>`; names sort by time."""
    now = datetime.datetime.now(datetime.UTC)
    # With milliseconds, since a run without work ends within a second.
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{uuid.uuid4().hex[:6]}"


def run_folder(output_path: str, run_id: str) -> str:
    """Returns the folder of a run's tables and manifest."""
    return storage.join(output_path, RUNS_FOLDER, run_id)


@dataclass
class RunFiles:
    """The listed files of one run.

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
        """Paths of the shards: rows of a killed or a running run that are not merged yet."""
        prefix = f"{SHARDS_FOLDER}/"
        return sorted(
            storage.join(self.folder, *name.split("/"))
            for name in self.names
            if name.startswith(prefix) and name.endswith(".csv")
        )


def files_of(folder: str) -> RunFiles:
    """Lists the files of one run."""
    return RunFiles(folder, set(storage.list_paths(folder)))


def runs_in(output_path: str, paths: Iterable[str] | None = None) -> list[RunFiles]:
    """Returns the runs of an output, the oldest first.

    Args:
        output_path: the output.
        paths: the output's files, relative to it; None lists them.
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
    """Returns a run's manifest; empty if it is missing or damaged."""
    try:
        found = json.loads(storage.read_bytes(storage.join(folder, MANIFEST)))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
