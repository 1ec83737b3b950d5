"""Reads an output for a report, in whatever state it is, and says in words what is unusual."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxr_embed import storage
from cxr_embed.elements import CONFIG_NAME
from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.opening import embedding_files, kind_of, place_of_embeddings
from cxr_embed.embeddings.readable import Damaged, load_readable
from cxr_embed.errors import UsageError
from cxr_embed.runs import history
from cxr_embed.runs.fingerprint import OutputConfig, read_output_config

_PACKED = {"parquet": "Parquet", "npz": ".npz", "tfrecord": "TFRecord shards"}


@dataclass
class Source:
    """What was read of an output.

    Attributes:
        embeddings: the usable embeddings, possibly none.
        damaged: files and images whose embedding cannot be used.
        config: the output's config; None if it does not exist or is damaged.
        runs: the runs of the output, the oldest first.
        ends: the latest outcome of each image.
        notices: sentences about the state of the output, for the top of the page.
    """

    embeddings: Embeddings
    damaged: list[Damaged]
    config: OutputConfig | None = None
    runs: list[history.Run] = field(default_factory=list)
    ends: history.Ends = field(default_factory=history.Ends)
    notices: list[str] = field(default_factory=list)


def read_source(path: str) -> Source:
    """Reads an output of the main job, a packed data set, or one file of embeddings.

    Raises:
        UsageError: nothing is at `path`, or it cannot be listed.
    """
    path = place_of_embeddings(path)
    first = next(embedding_files(path), None)
    if first is None and not _is_folder(path):
        raise UsageError(f"--input_path {path} is neither a folder nor a file of embeddings")
    problems = []
    try:
        config = read_output_config(path)
    except UsageError:
        config = None
        problems.append(f"{CONFIG_NAME} is damaged, so it is unknown how the embeddings were made.")
    source = Source(*load_readable(path, config.embedding_size if config else None), config)
    try:
        source.runs = history.read_runs(path)
        source.ends = history.read_ends(source.runs)
    except OSError as error:
        problems.append(f"The run tables cannot be read: {error.strerror or error}.")
    kind = kind_of(first) if first else "records"
    source.notices = [*_notices(source, kind), *problems]
    return source


def _is_folder(path: str) -> bool:
    if storage.is_on_disk(path):
        return Path(path).is_dir()
    return next(iter(storage.list_paths(path)), None) is not None


def _notices(source: Source, kind: str) -> list[str]:
    runs, ends, count = source.runs, source.ends, len(source.embeddings)
    found = []
    if kind in _PACKED:
        found.append(
            f"This is a packed data set ({_PACKED[kind]}). Its run tables are in the output that "
            "it was packed from."
        )
    elif count and not runs and source.config is None:
        found.append(
            "There are only records: no run tables and no settings. Another program wrote them, "
            "such as the original CXR Foundation toolkit, or they were copied alone."
        )
    if not count:
        found.append("There are no usable embeddings, so most sections are left out.")
    if source.damaged:
        found.append(f"Damaged records are left out: {len(source.damaged):,}, listed below.")
    unfinished = sum(not run.manifest for run in runs)
    if unfinished:
        found.append(
            f"Runs without a manifest, killed or still running: {unfinished:,} of {len(runs):,}. "
            "Their tables hold what was done until then; the same command resumes the work."
        )
    missing = ends.count("embedded") - count - len(source.damaged)
    if runs and missing > 0 and kind == "records":
        found.append(
            f"Images that the tables call embedded, but that have no record: {missing:,}. The same "
            "command computes them again."
        )
    if ends.damaged_tables and len(runs) > unfinished:
        found.append(f"Run tables that are missing or damaged: {ends.damaged_tables:,}.")
    return found
