"""Which images of a run already have a valid record: found with one listing of the output."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cxr_embed import storage
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
        temporary: files that another run is writing, or was when it was killed.
        runs: the files of earlier runs, the oldest run first.
    """

    records: set[str] = field(default_factory=set)
    temporary: list[str] = field(default_factory=list)
    runs: list[RunFiles] = field(default_factory=list)


class KnownRecord(NamedTuple):
    """What an earlier run noted of a record.

    Attributes:
        image_id: the image that it belongs to.
        floats: the embedding's size, as text.
        file_state: see `file_state`.
    """

    image_id: str
    floats: str
    file_state: str


@dataclass
class Done:
    """Which images need no computing.

    Attributes:
        records: their records, as paths below the output.
        damaged: records that are there and are not valid.
        checked: what is now known of the valid records that had to be read.
        others: (record, image that it belongs to, image of this run) where the two differ.
    """

    records: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)
    checked: dict[str, KnownRecord] = field(default_factory=dict)
    others: list[tuple[str, str, str]] = field(default_factory=list)


def survey(output_path: str) -> Survey:
    """Lists an output once; an output that does not exist yet is empty.

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
    """Removes files that a killed run was writing; those of a running one stay."""
    for path in temporary:
        storage.remove_if_abandoned(storage.join(output_path, path))


def known_records(runs: Iterable[RunFiles]) -> dict[str, KnownRecord]:
    """Returns what earlier runs noted of records, by record; the latest run's note counts."""
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
        except (OSError, csv.Error):  # a damaged table costs only time: its records are read
            continue
    return known


def write_checked(run_folder: str, checked: Mapping[str, KnownRecord]) -> None:
    """Notes records that had to be read, so that the next run need not read them."""
    text = "".join(csv_line([record, *note]) for record, note in sorted(checked.items()))
    data = text.encode("utf-8", "surrogateescape")
    storage.write_whole(storage.join(run_folder, CHECKED), data)


def require_same_settings(
    output_path: str, old: OutputConfig | None, fingerprint: Fingerprint, found: Survey
) -> None:
    """Refuses to mix embeddings that were made in different ways.

    Raises:
        UsageError: the output was made with other settings, or does not say with which.
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
    """Returns records that must go before the first new one is written, with --overwrite.

    They were made in another way, and if this run were killed, the next one would keep them.

    Args:
        output_path: the output.
        old: what the output says of itself.
        fingerprint: this run's.
        found: the output's listing.
        refs: all images of this run.

    Raises:
        UsageError: some of them would not be computed again.
    """
    if old is not None and not differences(old.fingerprint, fingerprint):
        return []
    others = found.records - {ref.record for ref in refs}
    if others:
        raise UsageError(
            f"{output_path} holds {len(others)} records that this run would not replace, such as "
            f"{min(others)}, made otherwise: pass the whole input or another --output_path"
        )
    return sorted(found.records)


def require_own_records(output_path: str, done: Done) -> None:
    """Refuses to take another image's record for an image of this run.

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
    """Returns which images already have a valid record.

    Local records are read and checked, except those that the file system says have not changed
    since an earlier run wrote or checked them. In a bucket a record that is there is valid, since
    an upload is whole or does not happen.

    Args:
        output_path: the output.
        refs: all images of this run.
        found: the output's listing.
        embedding_size: floats in a valid record; None takes any.
    """
    done = Done()
    present = [ref for ref in refs if ref.record in found.records]
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
    """Whether two local paths, such as a relative and an absolute one, name one file."""
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
    """Returns for each record what is known of it, None if not valid; and whether it was read."""
    folder = storage.start_of(output_path)

    def check(some: Sequence[ImageRef]) -> list[tuple[KnownRecord | None, bool]]:
        return [_check(f"{folder}{r.record}", known.get(r.record), embedding_size) for r in some]

    # A few large tasks: handing a task to a thread takes as long as looking at a record.
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
    # The state is older than the reading: what changes in between is read again next time.
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
