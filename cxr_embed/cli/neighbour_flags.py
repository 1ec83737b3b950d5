"""`evaluate --neighbours`: its flags, and what they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_embed.cli import head_flags
from cxr_embed.cli.flags import FlagSet
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.cli.terminal import Log
    from cxr_embed.heads.agreement import Agreement


def define(values: FlagSet) -> None:
    """Defines the flags."""
    values.switch(
        "neighbours",
        "measure how often the nearest images of other patients have the same label, against "
        "chance; needs --input_path and --labels_csv, but no predictions",
    )
    values.number("num_neighbours", 10, "how many nearest images --neighbours compares", least=1)
    values.repeatable("head_name",
        "the labels that --neighbours measures; by default the predictions' heads, or all columns "
        "of 0 and 1",
    )  # fmt: skip


def measure(values: FlagSet, heads: tuple[str, ...], log: Log) -> list[Agreement]:
    """Compares neighbours with chance.

    Args:
        values: the verb's flags.
        heads: names of the predictions' heads; none without predictions.
        log: receives one line of progress at a time.

    Raises:
        UsageError: embeddings or labels are missing, or do not fit.
    """
    import numpy as np

    from cxr_embed.heads import agreement, dataset, mapped

    names = head_flags.head_names(values) or heads or _found(values)
    table = head_flags.read_labels(values, names, needs_split=bool(values.split_name))
    embeddings = mapped.open_embeddings(
        head_flags.embeddings_paths(values), log, mixed_settings=values.mixed_settings
    )
    labelled = dataset.join(embeddings, table, allow_shared_patients=True)
    if not labelled.has_groups:
        log(
            "warning: no patient column (--group_column): every image counts as a patient of its "
            "own, and images of one patient may be neighbours"
        )
    chosen = np.ones(len(labelled), bool)
    if values.split_name:
        chosen = labelled.splits == values.split_name
        if not chosen.any():
            there = ", ".join(sorted(set(labelled.splits.tolist()))) or "no splits"
            raise UsageError(f"--split_name {values.split_name}: the labels have {there}")
    labels = np.full((len(embeddings), len(names)), np.nan, np.float32)
    labels[labelled.rows[chosen]] = labelled.labels[chosen]
    groups = np.arange(len(embeddings)) + len(embeddings)
    groups[labelled.rows] = labelled.groups
    settings = agreement.Settings(values.num_neighbours, values.num_bootstrap, values.seed)
    return agreement.measure(embeddings.values, labels, groups, names, settings=settings, log=log)


def _found(values: FlagSet) -> tuple[str, ...]:
    """Returns the columns of 0 and 1 of a labels CSV."""
    if not values.labels_csv:
        raise UsageError("--neighbours needs --labels_csv, or --mimic_dir and --head_name")
    from cxr_embed.embeddings.csv_table import read_csv_table
    from cxr_embed.heads.found_labels import find_labels

    tables = [read_csv_table(file, "--labels_csv").columns for file in values.labels_csv]
    names = tuple(
        name for name in find_labels(tables[0]) if all(name in columns for columns in tables)
    )
    if not names:
        raise UsageError("--labels_csv has no column of 0 and 1: pass --head_name")
    return names
