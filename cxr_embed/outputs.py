"""What already stands in an output: found with one listing, trusted only when valid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cxr_embed import ledger, storage
from cxr_embed.errors import UsageError
from cxr_embed.fingerprint import CONFIG_NAME, Fingerprint, OutputConfig, differences
from cxr_embed.records import BadRecord, decode_record
from cxr_embed.sources import RECORD_SUFFIX, ImageRef

RUNS_FOLDER = "_runs"

_READERS = 8


@dataclass
class Survey:
    """One listing of an output.

    Attributes:
        records: record files, as paths below the output.
        leftovers: files that a killed run was writing.
        ledgers: what earlier runs noted of records, the oldest run's first.
    """

    records: set[str] = field(default_factory=set)
    leftovers: list[str] = field(default_factory=list)
    ledgers: list[str] = field(default_factory=list)


@dataclass
class Standing:
    """Which images need no computing.

    Attributes:
        done: their records, as paths below the output.
        torn: records that stand and are not valid.
        other_ids: records whose `image/id` is another path than the one now given.
        checked: lines for the ledger: the valid ones among the records that had to be read.
    """

    done: set[str] = field(default_factory=set)
    torn: list[str] = field(default_factory=list)
    other_ids: list[str] = field(default_factory=list)
    checked: list[ledger.Line] = field(default_factory=list)


def survey(output_path: str) -> Survey:
    """Lists an output once; an output that does not exist yet is empty."""
    found = Survey()
    for path in storage.list_paths(output_path):
        name = path.rpartition("/")[2]
        if path.startswith(f"{RUNS_FOLDER}/"):
            if name in (ledger.STANDING, ledger.WRITTEN):
                found.ledgers.append(path)
        elif storage.is_temporary(name):
            found.leftovers.append(path)
        elif name.endswith(RECORD_SUFFIX):
            found.records.add(path)
    found.ledgers.sort()
    return found


def remove_leftovers(output_path: str, leftovers: Sequence[str]) -> None:
    """Removes what killed runs left; files that a living run is writing stay."""
    for path in leftovers:
        storage.remove_if_abandoned(storage.join(output_path, path))


def records_to_replace(
    output_path: str,
    old: OutputConfig | None,
    fingerprint: Fingerprint,
    found: Survey,
    refs: Sequence[ImageRef],
) -> list[str]:
    """Returns records that must go before the first new one is written, with --overwrite.

    They were made in another way, and if this run were killed, the next one would take them for
    its own.

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
                f"{output_path} holds {len(found.records)} records but no {CONFIG_NAME}, so nobody "
                f"can tell how they were made: {remedy}"
            )
    elif changed := differences(old.fingerprint, fingerprint):
        raise UsageError(
            f"{output_path} was made with other settings ({', '.join(changed)}): {remedy}"
        )


def find_standing(
    output_path: str, refs: Sequence[ImageRef], found: Survey, embedding_size: int
) -> Standing:
    """Tells which images already have a valid record.

    Local records are read and checked, except those of which a ledger says that they were, and the
    file system that they are the same since. On GCS the object's presence is trusted: an upload is
    atomic.
    """
    standing = Standing()
    present = [ref for ref in refs if ref.record in found.records]
    if storage.is_remote(output_path):
        standing.done = {ref.record for ref in present}
        return standing
    known = ledger.read(storage.join(output_path, path) for path in found.ledgers)
    folder = storage.start_of(output_path)

    def look(some: Sequence[ImageRef]) -> list[tuple[ledger.Line | None, bool]]:
        return [_look(folder, ref.record, known, embedding_size) for ref in some]

    # A few large tasks: handing a task to a thread takes as long as looking at a record.
    step = 1 + len(present) // _READERS
    parts = [present[start : start + step] for start in range(0, len(present), step)]
    with ThreadPoolExecutor(_READERS) as pool:
        looked = itertools.chain.from_iterable(pool.map(look, parts))
        for ref, (line, was_read) in zip(present, looked, strict=True):
            if line is None:
                standing.torn.append(ref.record)
                continue
            standing.done.add(ref.record)
            if was_read and line.stamp:
                standing.checked.append(line)
            if line.image_id != ref.path:
                standing.other_ids.append(ref.record)
    return standing


def _look(
    folder: str, record: str, known: Mapping[str, ledger.Line], embedding_size: int
) -> tuple[ledger.Line | None, bool]:
    """Returns what is known of one local record, None if it is not valid; whether it was read."""
    path = f"{folder}{record}"
    stamp, line = ledger.stamp_of(path), known.get(record)
    if line and stamp and line.stamp == stamp and line.floats == str(embedding_size):
        return line, False
    # The stamp is older than the reading: what changes in between is read again next time.
    try:
        read = decode_record(storage.read_bytes(path))
    except (BadRecord, OSError):
        return None, True
    if len(read.embedding) != embedding_size:
        return None, True
    return ledger.Line(record, read.image_id, str(embedding_size), stamp or ""), True
