"""Verifies an output or a packed data set: checks all embeddings, sums, shards and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cxr_embed import storage
from cxr_embed.datasets import inputs
from cxr_embed.datasets.checks import Seen, check_records, check_rows, compare
from cxr_embed.datasets.findings import REPAIRABLE, Findings
from cxr_embed.datasets.sums import SUMS_NAME, digest, read_sums
from cxr_embed.elements import CONFIG_NAME, RECORD_SUFFIX, RUNS_FOLDER
from cxr_embed.embeddings.opening import (
    NotRead,
    is_embedding_file,
    open_parts,
    place_of_embeddings,
)
from cxr_embed.embeddings.parts import NPZ_SUFFIX, PARQUET_SUFFIX, SHARD_NAME
from cxr_embed.embeddings.record_files import usual_size
from cxr_embed.errors import PlaceLost, PlaceUnavailable, UsageError
from cxr_embed.runs.fingerprint import OutputConfig, differences, read_output_config
from cxr_embed.runs.history import read_ends, read_manifests, read_runs

_RECORDS_AT_A_TIME = 1024
_READERS = 2

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Contents:
    """The files of an output, as sorted paths below it.

    For a single file, it contains only this file, and `folder` is the file's folder.
    """

    folder: str
    records: list[str]
    packed: list[str]
    leftovers: list[str]
    others: list[str]
    is_file: bool = False


def verify(
    path: str,
    images: str | None,
    start: Callable[[int], Advance],
    dicomweb_query: str | None = None,
    *,
    search_archives: bool = False,
) -> Findings:
    """Verifies an output of the main job, or a packed data set.

    Args:
        path: a folder or one file, local or in a bucket.
        images: the inputs: a folder, glob or `.txt` list, local or in a bucket; None does not
            compare them.
        start: gets the number of files; returns a function that is called with the number of files
            that were checked.
        dicomweb_query: that of the run, if the inputs are in a DICOMweb store.
        search_archives: whether the run opened archives among the inputs.

    Raises:
        UsageError: there are no embeddings, or no inputs are found.
    """
    path = place_of_embeddings(path)
    try:
        there = list_contents(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error}") from error
    if not there.records and not there.packed:
        raise UsageError(f"no embeddings in {path}")
    path = there.folder
    refs = []
    if images and there.records:
        refs = inputs.find_inputs(
            images, there.records, path, dicomweb_query, search_archives=search_archives
        )
    if images and not there.records:
        raise UsageError("--inputs is for outputs of the main job, not for packed data sets")
    found = Findings()
    checker = _Checker(there, found)
    checker.advance = start(len(there.records) + len(there.packed))
    records = checker.check_records()
    found.extend(compare([*records, *checker.check_packed()]))
    if not there.is_file:
        _check_shards(there.packed, found)
        checker.check_sums()
    if refs:
        ends = read_ends(read_runs(path))
        found.skipped = sum(ends.kind_of(ref.path) == "skipped" for ref in refs)
        image_of = dict.fromkeys(there.records, "") | {seen.path: seen.image_id for seen in records}
        found.extend(inputs.compare_inputs(refs, image_of, ends))
    for leftover in there.leftovers:
        found.add("leftover", leftover)
    return found


def why_not_repairable(path: str) -> str | None:
    """Returns why nothing can be removed from an output, or None."""
    return storage.why_not_writable(_folder_of(path))


def repair(path: str, found: Findings) -> list[str]:
    """Removes bad records and shards, and temporary files of killed runs.

    Args:
        path: the verified folder or file.
        found: the result of `verify`.

    Returns:
        The removed files, as paths below the output.
    """
    path = _folder_of(place_of_embeddings(path))
    bad = {
        finding.path
        for finding in found.problems
        if finding.code in REPAIRABLE and _holds_embeddings(finding.path)
    }
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda below: storage.remove(storage.join(path, below)), bad))
    dead = [
        note.path for note in found.notes
        if note.code == "leftover" and storage.remove_if_abandoned(storage.join(path, note.path))
    ]  # fmt: skip
    return sorted(bad) + dead


def list_contents(path: str) -> Contents:
    """Lists the files of an output; for a single file, only this file."""
    if is_embedding_file(path):
        there = Contents(_folder_of(path), [], [], [], [], is_file=True)
        name = path.rpartition("/")[2]
        (there.records if _is_record(name) else there.packed).append(name)
        return there
    there = Contents(path, [], [], [], [])
    for below in sorted(storage.list_paths(path)):
        if below.startswith(f"{RUNS_FOLDER}/") or below == SUMS_NAME:
            continue
        if storage.is_temporary(below.rpartition("/")[2]):
            there.leftovers.append(below)
        elif not _holds_embeddings(below):
            there.others.append(below)
        elif _is_record(below):
            there.records.append(below)
        else:
            there.packed.append(below)
    return there


def _holds_embeddings(path: str) -> bool:
    return path.endswith((RECORD_SUFFIX, PARQUET_SUFFIX, NPZ_SUFFIX))


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "." if is_embedding_file(path) else path


def _is_record(path: str) -> bool:
    return path.endswith(RECORD_SUFFIX) and not SHARD_NAME.search(path)


def _check_config(path: str, found: Findings) -> OutputConfig | None:
    try:
        config = read_output_config(path)
    except UsageError:
        found.add("bad_config", CONFIG_NAME)
        return None
    if config is None:
        found.add("no_config", CONFIG_NAME)
        return None
    for manifest in reversed(read_manifests(path)):
        if manifest.get("counts", {}).get("embedded"):
            changed = differences(config.fingerprint, manifest.get("fingerprint") or {})
            if changed:
                found.add("other_fingerprint", CONFIG_NAME, ", ".join(changed))
            break
    return config


class _Checker:
    """Checks the files of one output, and adds the results to `found`."""

    def __init__(self, there: Contents, found: Findings) -> None:
        self._path, self._there, self._found = there.folder, there, found
        self._config = None if there.is_file else _check_config(there.folder, found)
        self._sums = None if there.is_file else read_sums(there.folder)
        self.advance: Advance = lambda done: None

    def check_records(self) -> list[Seen]:
        """Checks all records; returns the valid ones."""
        records = self._there.records
        if not records:
            return []
        size = (
            self._config.embedding_size
            if self._config
            else usual_size(storage.join(self._path, record) for record in records)
        )
        step = _RECORDS_AT_A_TIME
        chunks = [records[i : i + step] for i in range(0, len(records), step)]
        seen: list[Seen] = []
        with ThreadPoolExecutor(_READERS) as pool:
            checked = pool.map(lambda c: check_records(self._path, c, size, self._sums), chunks)
            for chunk, (good, findings) in zip(chunks, checked, strict=True):
                seen += good
                self._found.extend(findings)
                self._found.embeddings += len(chunk)
                self.advance(len(chunk))
        return seen

    def check_packed(self) -> list[Seen]:
        """Checks all packed embeddings; returns the valid ones."""
        seen: list[Seen] = []
        for file in self._there.packed:
            try:
                seen += self._check_file(file)
            except UsageError as error:
                is_unread = isinstance(error, NotRead) or isinstance(
                    error.__cause__, PermissionError
                )
                self._found.add("unreadable" if is_unread else "torn", file, str(error))
            self.advance(1)
        return seen

    def _check_file(self, file: str) -> list[Seen]:
        seen: list[Seen] = []
        with open_parts(storage.join(self._path, file)) as opened:
            if self._config and opened.embedding_size != self._config.embedding_size:
                sizes = f"{opened.embedding_size} floats, not {self._config.embedding_size}"
                self._found.add("wrong_size", file, sizes)
            for part in opened.parts:
                values = np.empty((part.rows, opened.embedding_size), np.float32)
                names = part.read(values)
                checked = check_rows([(file, *both) for both in zip(*names, strict=True)], values)
                seen += checked.seen
                self._found.extend(checked.findings)
                self._found.embeddings += part.rows
        return seen

    def check_sums(self) -> None:
        """Compares the sums of all files except records, which `check_records` compares."""
        if self._sums is None:
            return
        there, found = self._there, self._found
        existing = {*there.records, *there.packed, *there.others}
        for below in sorted({*self._sums} - existing):
            if not storage.exists(storage.join(self._path, below)):  # `there` omits some files
                found.add("missing_file", below)
        for below in (*there.packed, *there.others):
            wanted = self._sums.get(below)
            try:
                if wanted and digest(storage.join(self._path, below))[0] != wanted:
                    found.add("sum_mismatch", below)
            except PlaceUnavailable as error:
                raise PlaceLost(str(error)) from error
            except OSError as error:
                found.add("unreadable", below, error.strerror or str(error))
        for below in sorted(existing - {*self._sums}):
            found.add("not_in_sums", below)


def _check_shards(packed: Sequence[str], found: Findings) -> None:
    """Finds gaps among numbered shards."""
    there = set(packed)
    for file in packed:
        shard = SHARD_NAME.search(file)
        if shard is None:
            continue
        number, count = shard[1], int(shard[2])
        for other in range(count):
            expected = file.replace(f"-{number}-of-", f"-{other:05d}-of-")
            if expected not in there:
                found.add("missing_shard", expected)
        return
