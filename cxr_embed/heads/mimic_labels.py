"""MIMIC-CXR-JPG's own label files, joined.

Columns as published with MIMIC-CXR-JPG 2.0.0 (https://physionet.org/content/mimic-cxr-jpg/2.0.0/):

- `mimic-cxr-2.0.0-split.csv.gz`: dicom_id, study_id, subject_id, split (train, validate, test)
- `mimic-cxr-2.0.0-chexpert.csv.gz`: subject_id, study_id, and 14 findings: 1.0, 0.0, -1.0 (the
  report is unsure) or blank (not mentioned), for a whole study
- `mimic-cxr-2.0.0-metadata.csv.gz`: dicom_id, subject_id, study_id, ViewPosition, Rows, ...
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_embed import storage
from cxr_embed.embeddings.csv_table import CsvTable, read_csv_table
from cxr_embed.errors import UsageError
from cxr_embed.heads.labels import LabelOptions, LabelTable, label_of

_PREFIX = "mimic-cxr-2.0.0-"
_FLAG = "--mimic_dir"


def read_mimic(folder: str, options: LabelOptions) -> LabelTable:
    """Joins split, chexpert and metadata: one row an image, its labels those of its study.

    The group is the subject_id, unless the options name another column. Extra columns are looked
    for in the metadata, then in the findings.

    Args:
        folder: where the three files are, local or in a bucket; with or without `.gz`.
        options: which heads, and what blank and -1 mean.

    Returns:
        A row for each image of the split file. The label of a study that the findings leave out is
        NaN.

    Raises:
        UsageError: a file or a column is missing.
    """
    split, findings = _read(folder, "split"), _read(folder, "chexpert")
    names = tuple(name for name in options.extra_columns if name not in findings.columns)
    images = _read(folder, "metadata") if names else None
    studies, dicom_ids = split.column("study_id"), split.column("dicom_id")
    row_of = _rows_by(findings, "study_id")
    values = np.full((len(split), len(options.heads)), np.nan, np.float32)
    for number, head in enumerate(options.heads):
        labels = _labels(findings, head, options)
        values[:, number] = [
            labels[row_of[study]] if study in row_of else np.nan for study in studies
        ]
    extras = {}
    for name in options.extra_columns:
        if images is not None and name in names:
            extras[name] = _look_up(images, "dicom_id", name, dicom_ids)
        else:
            extras[name] = _look_up(findings, "study_id", name, studies)
    return LabelTable(
        source=split.path,
        heads=options.heads,
        columns=split.columns,
        lines=split.lines,
        splits=split.column("split"),
        groups=split.column(options.group_column or "subject_id"),
        values=values,
        extras=extras,
    )


def _labels(findings: CsvTable, head: str, options: LabelOptions) -> list[float]:
    name = findings.name_of(head)
    return [
        label_of(cell, options, f"{findings.path} line {line}, column {name}")
        for line, cell in zip(findings.lines, findings.columns[name], strict=True)
    ]


def _look_up(table: CsvTable, key: str, name: str, wanted: Sequence[str]) -> list[str]:
    """Returns a column's cell for each wanted key, empty where the table has none."""
    row_of, cells = _rows_by(table, key), table.column(name)
    return [cells[row_of[one]] if one in row_of else "" for one in wanted]


def _rows_by(table: CsvTable, key: str) -> dict[str, int]:
    """Returns the row of each key, which must be there once."""
    row_of: dict[str, int] = {}
    for row, value in enumerate(table.column(key)):
        first = row_of.setdefault(value, row)
        if first != row:
            raise UsageError(
                f"{table.path} lines {table.lines[first]} and {table.lines[row]} have the same "
                f"{key}, {value}"
            )
    return row_of


def _read(folder: str, name: str) -> CsvTable:
    """Reads one of the files, compressed as published or unpacked."""
    for suffix in (".csv.gz", ".csv"):
        path = storage.join(folder, f"{_PREFIX}{name}{suffix}")
        if storage.exists(path):
            return read_csv_table(path, _FLAG)
    raise UsageError(f"{_FLAG} {folder} has no {_PREFIX}{name}.csv.gz")
