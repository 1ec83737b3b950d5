"""Finds the archives that earlier runs have finished, so that a resumed run does not open them.

Each run notes the archives that it listed: their state and a digest of their members' addresses.
An archive of the same state, whose members all have a row in the tables, is finished.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cxr_embed import members, storage
from cxr_embed.elements import ImageRef
from cxr_embed.runs.folder import RunFiles, runs_in
from cxr_embed.runs.tables import csv_line, read_table
from cxr_embed.storage.addresses import ARCHIVES
from cxr_embed.storage.search_archives import ImagesIn, ListedArchive, digest

# In a run's folder: the archives that the run listed.
_LISTED = "archives.csv"

_ENCODING = ("utf-8", "surrogateescape")


@dataclass
class _Outcomes:
    """The outcomes of an archive's members in earlier runs, by address."""

    embedded: set[str] = field(default_factory=set)
    not_images: set[str] = field(default_factory=set)


def write_archives(run_folder: str, listed: Mapping[str, ListedArchive]) -> None:
    """Stores the archives that a run listed."""
    text = "".join(csv_line([archive, *facts]) for archive, facts in sorted(listed.items()))
    storage.write_whole(storage.join(run_folder, _LISTED), text.encode(*_ENCODING), replace=True)


def finished_archives(outputs: Sequence[str]) -> ImagesIn:
    """Returns what knows the archives whose images all have an outcome, in each of some outputs.

    Args:
        outputs: the outputs of a run. Their tables are read when an archive is first asked for.
    """
    each = [_FinishedArchives(output) for output in outputs]

    def images_in(archive: str, state: str) -> list[str] | None:
        found = [finished.images_in(archive, state) for finished in each]
        # An image that one output lacks is embedded for it alone, so the lists are the same.
        return found[0] if found and all(images == found[0] for images in found) else None

    return images_in


def located(refs: Sequence[ImageRef]) -> list[ImageRef]:
    """Returns images with their places in their archives, as far as a search left them out.

    This happens if the record of a finished archive's image is no longer there.

    Args:
        refs: images that will be read.
    """
    archives = {found[0] for ref in refs if (found := _unlocated(ref))}
    locations: dict[str, str] = {}
    for archive in sorted(archives):
        try:
            for name, location in ARCHIVES.list_members(archive):
                locations[members.join(archive, name)] = location
        except OSError:  # becomes the failure of each of these images
            continue
    if not locations:
        return list(refs)
    return [
        replace(ref, location=locations.get(ref.path, "")) if _unlocated(ref) else ref
        for ref in refs
    ]


def _unlocated(ref: ImageRef) -> tuple[str, str] | None:
    if ref.location or ref.is_listed or not storage.is_member(ref.path):
        return None
    return members.split(ref.path)


class _FinishedArchives:
    """The archives whose images all have an outcome in one output."""

    def __init__(self, output_path: str) -> None:
        self._output_path = output_path

    def images_in(self, archive: str, state: str) -> list[str] | None:
        """Does `search_archives.ImagesIn`."""
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
            if _LISTED in run.names:
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
        data = storage.read_bytes(storage.join(run.folder, _LISTED))
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
