"""Labels of images from a labels CSV: each cell is checked, none is guessed.

A labels CSV has a column that names the images, such as `image_id`, the column `split`, one column
a head (1, 0 or blank), and any others, such as a patient or what subgroups are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_embed.embeddings.csv_table import read_csv_table
from cxr_embed.errors import UsageError

SPLIT_COLUMN = "split"
PATIENT_COLUMNS = ("patient_id", "subject_id")

# CheXpert's labeller writes -1 where a report is unsure.
UNCERTAIN = -1.0
UNCERTAIN_POLICIES = {"missing": np.nan, "negative": 0.0, "positive": 1.0}
BLANK_POLICIES = {"missing": np.nan, "negative": 0.0}


@dataclass(frozen=True)
class LabelOptions:
    """How to read labels.

    Attributes:
        heads: names of the heads: columns.
        group_column: the column that identifies patients; None takes one of PATIENT_COLUMNS, if
            there.
        extra_columns: columns to keep as text, for subgroups.
        uncertain: a key of UNCERTAIN_POLICIES: what -1 means.
        blank: a key of BLANK_POLICIES: what an empty cell means.
        needs_split: whether a table without the column `split` is a mistake.
    """

    heads: tuple[str, ...]
    group_column: str | None = None
    extra_columns: tuple[str, ...] = ()
    uncertain: str = "missing"
    blank: str = "missing"
    needs_split: bool = True


@dataclass
class LabelTable:
    """Labels as they were read, row by row.

    Attributes:
        source: where they come from, for messages.
        heads: names of the heads.
        columns: for each column of the file its cells, as text. One of them names the images;
            which one, `embeddings.joining` decides.
        lines: the line of the file that each row is from.
        splits: names of the splits.
        groups: patients; empty strings where the file has none.
        values: float32 of shape (rows, heads): 0, 1, or NaN where there is no label.
        extras: further columns, as text.
        files: the file of each row, where there are several; else empty.
    """

    source: str
    heads: tuple[str, ...]
    columns: dict[str, list[str]]
    lines: list[int]
    splits: list[str]
    groups: list[str]
    values: np.ndarray
    extras: dict[str, list[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)


def concatenate(tables: Sequence[LabelTable]) -> LabelTable:
    """Returns the rows of several tables as one; the columns are those that all of them have."""
    if len(tables) == 1:
        return tables[0]

    def joined(name: str) -> list[Any]:
        return [item for table in tables for item in getattr(table, name)]

    shared = [name for name in tables[0].columns if all(name in t.columns for t in tables)]
    return LabelTable(
        source=", ".join(table.source for table in tables),
        heads=tables[0].heads,
        columns={name: [c for t in tables for c in t.columns[name]] for name in shared},
        lines=joined("lines"),
        splits=joined("splits"),
        groups=joined("groups"),
        values=np.concatenate([table.values for table in tables]),
        extras={
            name: [cell for t in tables for cell in t.extras[name]] for name in tables[0].extras
        },
        files=[table.source for table in tables for _ in table.lines],
    )


def read_labels_csv(path: str, options: LabelOptions, flag: str = "--labels_csv") -> LabelTable:
    """Reads a labels CSV.

    Args:
        path: local or in a bucket, plain or gzip-compressed.
        options: which columns, and what blank and -1 mean.
        flag: the flag that named the file, for messages.

    Returns:
        All rows, whatever their split.

    Raises:
        UsageError: unreadable, a column missing, or a label that is none.
    """
    rows = read_csv_table(path, flag)
    split = rows.column(SPLIT_COLUMN) if options.needs_split else rows.columns.get(SPLIT_COLUMN)
    if options.group_column:
        group: list[str] | None = rows.column(options.group_column)
    else:
        group = next((rows.columns[name] for name in PATIENT_COLUMNS if name in rows.columns), None)
    values = np.empty((len(rows), len(options.heads)), np.float32)
    for number, head in enumerate(options.heads):
        name = rows.name_of(head)
        values[:, number] = [
            label_of(cell, options, f"{path} line {line}, column {name}")
            for line, cell in zip(rows.lines, rows.columns[name], strict=True)
        ]
    nothing = [""] * len(rows)
    return LabelTable(
        source=path,
        heads=options.heads,
        columns=rows.columns,
        lines=rows.lines,
        splits=nothing if split is None else split,
        groups=nothing if group is None else group,
        values=values,
        extras={name: rows.column(name) for name in options.extra_columns},
    )


def label_of(cell: str, options: LabelOptions, where: str) -> float:
    """Returns 0, 1 or NaN.

    Raises:
        UsageError: the cell holds anything but 0, 1, -1 or nothing.
    """
    text = cell.strip()
    if not text:
        return float(BLANK_POLICIES[options.blank])
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if value in (0.0, 1.0):
        return value
    if value == UNCERTAIN:
        return float(UNCERTAIN_POLICIES[options.uncertain])
    raise UsageError(f"{where}: {text!r} is no label; labels are 1, 0 and blank (-1 is uncertain)")
