"""Finds the archives that earlier runs have finished, so that a resumed run does not open them.

Each run notes the archives that it listed: their state and a digest of their members' addresses.
An archive of the same state, whose members all have a row in the tables, is finished.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from cxr_embed import members, storage
from cxr_embed.runs.folder import RunFiles, runs_in
from cxr_embed.runs.tables import csv_line, read_table
from cxr_embed.storage.search_archives import ListedArchive, digest

# In a run's folder: the archives that the run listed.
ARCHIVES = "archives.csv"

_ENCODING = ("utf-8", "surrogateescape")


@dataclass
class _Outcomes:
    """The outcomes of an archive's members in earlier runs, by address."""

    embedded: set[str] = field(default_factory=set)
    not_images: set[str] = field(default_factory=set)


def write_archives(run_folder: str, listed: Mapping[str, ListedArchive]) -> None:
    """Stores the archives that a run listed."""
    text = "".join(csv_line([archive, *facts]) for archive, facts in sorted(listed.items()))
    storage.write_whole(storage.join(run_folder, ARCHIVES), text.encode(*_ENCODING), replace=True)


class FinishedArchives:
    """The archives whose images all have an outcome in an output; its tables are read when needed.

    Args:
        output_path: the output.
    """

    def __init__(self, output_path: str) -> None:
        self._output_path = output_path

    def __call__(self, archive: str, state: str) -> list[str] | None:
        """Returns the addresses of an archive's images, see `search_archives.ImagesIn`."""
        listed, outcomes = self._read
        if archive not in outcomes or listed[archive].state != state:
            return None
        found = outcomes[archive]
        if digest(found.embedded | found.not_images) != listed[archive].members:
            return None
        return sorted(found.embedded)

    @functools.cached_property
    def _read(self) -> tuple[dict[str, ListedArchive], dict[str, _Outcomes]]:
        try:
            runs = runs_in(self._output_path)
        except OSError:  # the plan lists the output again and says what is wrong
            return {}, {}
        listed: dict[str, ListedArchive] = {}
        outcomes: dict[str, _Outcomes] = {}
        for run in runs:
            if ARCHIVES in run.names:
                listed |= _read_archives(run)
        for run in runs if listed else []:
            try:
                for row in read_table(run, "embedded"):
                    _outcomes_of(row["path"], listed, outcomes).embedded.add(row["path"])
                for row in read_table(run, "skipped"):
                    if row["reason"] == "not_an_image":
                        _outcomes_of(row["path"], listed, outcomes).not_images.add(row["path"])
            except (OSError, csv.Error):  # without the table, its archives are opened again
                continue
        return listed, outcomes


def _read_archives(run: RunFiles) -> dict[str, ListedArchive]:
    try:
        data = storage.read_bytes(storage.join(run.folder, ARCHIVES))
        rows = list(csv.reader(io.StringIO(data.decode(*_ENCODING), newline="")))
    except (OSError, csv.Error):
        return {}
    return {row[0]: ListedArchive(*row[1:]) for row in rows if len(row) == 3}


def _outcomes_of(
    path: str, listed: Mapping[str, ListedArchive], outcomes: dict[str, _Outcomes]
) -> _Outcomes:
    """Returns where to add a path; for a path that is in no listed archive, nowhere."""
    found = members.split(path)
    if found is None or found[0] not in listed:
        return _Outcomes()
    return outcomes.setdefault(found[0], _Outcomes())
