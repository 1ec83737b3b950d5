"""Resumes an output: finds the images that already have a valid record, with one listing."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cxr_embed import members, storage
from cxr_embed.elements import CONFIG_NAME, RECORD_SUFFIX, RUNS_FOLDER, ImageRef
from cxr_embed.errors import UsageError
from cxr_embed.records import BadRecord, decode_record
from cxr_embed.runs.fingerprint import Fingerprint, OutputConfig, differences
from cxr_embed.runs.folder import RunFiles, runs_in
from cxr_embed.runs.tables import csv_line, read_table
from cxr_embed.storage.file_state import file_state

# In a run's folder: records that the run found in the output and had to read.
CHECKED = "checked.csv"

_READERS = 8


@dataclass
class Survey:
    """One listing of an output.

    Attributes:
        records: record files, as paths below the output.
        temporary: temporary files of running or killed runs.
        runs: the files of earlier runs, the oldest run first.
    """

    records: set[str] = field(default_factory=set)
    temporary: list[str] = field(default_factory=list)
    runs: list[RunFiles] = field(default_factory=list)


class KnownRecord(NamedTuple):
    """What an earlier run recorded about a record file.

    Attributes:
        image_id: path of the image.
        floats: the embedding's size, as text.
        file_state: see `file_state`.
    """

    image_id: str
    floats: str
    file_state: str


@dataclass
class Done:
    """Existing records of a run's images.

    Attributes:
        records: valid records, as paths below the output.
        damaged: records that exist and are not valid.
        checked: valid records that had to be read.
        others: (record, its image id, image of this run) for records of another image.
    """

    records: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)
    checked: dict[str, KnownRecord] = field(default_factory=dict)
    others: list[tuple[str, str, str]] = field(default_factory=list)


def survey(output_path: str) -> Survey:
    """Lists an output once; an output that does not exist is empty.

    Raises:
        OSError: a part of it cannot be listed.
    """
    found = Survey()
    in_runs = []
    for path in storage.list_paths(output_path):
        if path.startswith(f"{RUNS_FOLDER}/"):
            in_runs.append(path)
        elif storage.is_temporary(path.rpartition("/")[2]):
            found.temporary.append(path)
        elif path.endswith(RECORD_SUFFIX):
            found.records.add(path)
    found.runs = runs_in(output_path, in_runs)
    return found


def remove_abandoned(output_path: str, temporary: Sequence[str]) -> None:
    """Removes temporary files of killed runs; those of running runs are kept."""
    for path in temporary:
        storage.remove_if_abandoned(storage.join(output_path, path))


def known_records(runs: Iterable[RunFiles]) -> dict[str, KnownRecord]:
    """Returns what earlier runs recorded about record files, by record; the latest run wins."""
    known: dict[str, KnownRecord] = {}
    for run in runs:
        try:
            for row in read_table(run, "embedded"):
                note = KnownRecord(row["path"], row.get("floats", ""), row.get("file_state", ""))
                known[row.get("record", "")] = note
            if CHECKED in run.names:
                text = storage.read_bytes(storage.join(run.folder, CHECKED))
                rows = csv.reader(io.StringIO(text.decode("utf-8", "surrogateescape"), newline=""))
                known.update({row[0]: KnownRecord(*row[1:]) for row in rows if len(row) == 4})
        except (OSError, csv.Error):  # without the table, its records are read again
            continue
    return known


def write_checked(run_folder: str, checked: Mapping[str, KnownRecord]) -> None:
    """Stores the checked records, so that the next run does not read them again."""
    text = "".join(csv_line([record, *note]) for record, note in sorted(checked.items()))
    data = text.encode("utf-8", "surrogateescape")
    storage.write_whole(storage.join(run_folder, CHECKED), data)


def require_same_settings(
    output_path: str, old: OutputConfig | None, fingerprint: Fingerprint, found: Survey
) -> None:
    """Checks that an output has the fingerprint of this run, so that settings are never mixed.

    Raises:
        UsageError: the output has another fingerprint, or holds records without one.
    """
    remedy = "pass --overwrite to compute them again, or another --output_path"
    if old is None:
        if found.records:
            raise UsageError(
                f"{output_path} holds {len(found.records)} records but no {CONFIG_NAME}, so it is "
                f"unknown how they were made: {remedy}"
            )
    elif changed := differences(old.fingerprint, fingerprint):
        raise UsageError(
            f"{output_path} was made with other settings ({', '.join(changed)}): {remedy}"
        )


def records_to_replace(
    output_path: str,
    old: OutputConfig | None,
    fingerprint: Fingerprint,
    found: Survey,
    refs: Sequence[ImageRef],
) -> list[str]:
    """Returns the records that --overwrite removes before the first new record is written.

    They have another fingerprint. If this run were killed, the next run would keep them.

    Args:
        output_path: the output.
        old: the output's config.
        fingerprint: the fingerprint of this run.
        found: the output's listing.
        refs: all images of this run.

    Raises:
        UsageError: some of these records would not be computed again.
    """
    if old is not None and not differences(old.fingerprint, fingerprint):
        return []
    others = found.records - {ref.record for ref in refs}
    if others:
        raise UsageError(
            f"{output_path} holds {len(others)} records with other settings that this run would "
            f"not replace, such as {min(others)}: pass the whole input or another --output_path"
        )
    return sorted(found.records)


def require_own_records(output_path: str, done: Done) -> None:
    """Checks that no existing record of this run's images belongs to another image.

    Raises:
        UsageError: a record belongs to another path.
    """
    if not done.others:
        return
    record, theirs, ours = done.others[0]
    more = f" (and {len(done.others) - 1} more records)" if len(done.others) > 1 else ""
    raise UsageError(
        f"{storage.join(output_path, record)} is the record of {theirs}, not of {ours}{more}: pass "
        "another --output_path, or --output_layout=mirror, or --moved_inputs if the files were "
        "moved and are the same images"
    )


def find_done(
    output_path: str, refs: Sequence[ImageRef], found: Survey, embedding_size: int | None
) -> Done:
    """Finds the images that already have a valid record.

    Local records are read and checked, except those whose file state has not changed since an
    earlier run wrote or checked them. A record in a bucket is valid if it exists, since an upload
    is atomic.

    Args:
        output_path: the output.
        refs: all images of this run.
        found: the output's listing.
        embedding_size: floats in a valid record; None accepts any number.
    """
    done = Done()
    present = [ref for ref in refs if ref.record in found.records and not ref.is_refused]
    if not present:
        return done
    known = known_records(found.runs)
    if storage.is_remote(output_path):
        checked: Iterable[tuple[KnownRecord | None, bool]] = (
            (known.get(ref.record) or KnownRecord(ref.path, "", ""), False) for ref in present
        )
    else:
        checked = _check_local(output_path, present, known, embedding_size)
    for ref, (note, was_read) in zip(present, checked, strict=True):
        if note is None:
            done.damaged.append(ref.record)
            continue
        done.records.add(ref.record)
        if was_read and note.file_state:
            done.checked[ref.record] = note
        if note.image_id != ref.path and not _is_same_file(note.image_id, ref.path):
            done.others.append((ref.record, note.image_id, ref.path))
    return done


def _is_same_file(one: str, other: str) -> bool:
    """Whether two local paths, such as a relative and an absolute one, are the same file."""
    first, second = members.split(one), members.split(other)
    if first and second and first[1] == second[1]:
        one, other = first[0], second[0]
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False


def _check_local(
    output_path: str,
    refs: Sequence[ImageRef],
    known: Mapping[str, KnownRecord],
    embedding_size: int | None,
) -> Iterable[tuple[KnownRecord | None, bool]]:
    """Returns (known record or None if not valid, whether it was read) for each image."""
    folder = storage.start_of(output_path)

    def check(some: Sequence[ImageRef]) -> list[tuple[KnownRecord | None, bool]]:
        return [_check(f"{folder}{r.record}", known.get(r.record), embedding_size) for r in some]

    # A few large tasks: submitting a task takes as long as checking a record.
    step = 1 + len(refs) // _READERS
    parts = [refs[start : start + step] for start in range(0, len(refs), step)]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(itertools.chain.from_iterable(pool.map(check, parts)))


def _check(
    path: str, known: KnownRecord | None, embedding_size: int | None
) -> tuple[KnownRecord | None, bool]:
    state = file_state(path)
    if known and state and known.file_state == state and _fits(known.floats, embedding_size):
        return known, False
    # The state is taken before the read. A file that changes in between is read again next time.
    try:
        record = decode_record(storage.read_bytes(path))
    except (BadRecord, OSError):
        return None, True
    floats = str(len(record.embedding))
    if not _fits(floats, embedding_size):
        return None, True
    return KnownRecord(record.image_id, floats, state), True


def _fits(floats: str, embedding_size: int | None) -> bool:
    return embedding_size is None or floats == str(embedding_size)
