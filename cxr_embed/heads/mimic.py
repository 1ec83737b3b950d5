"""MIMIC-CXR-JPG's own label files, joined.

Columns as published with MIMIC-CXR-JPG 2.0.0 (https://physionet.org/content/mimic-cxr-jpg/2.0.0/):

- `mimic-cxr-2.0.0-split.csv.gz`: dicom_id, study_id, subject_id, split (train, validate, test)
- `mimic-cxr-2.0.0-chexpert.csv.gz`: subject_id, study_id, and 14 findings: 1.0, 0.0, -1.0 (the
  report is unsure) or blank (not mentioned), for a whole study
- `mimic-cxr-2.0.0-metadata.csv.gz`: dicom_id, subject_id, study_id, ViewPosition, Rows, ...
"""

from __future__ import annotations

import numpy as np

from cxr_embed import storage
from cxr_embed.errors import UsageError
from cxr_embed.heads.labels import CsvRows, LabelOptions, LabelTable, label_of

TUNE_SPLIT = "validate"

_PREFIX = "mimic-cxr-2.0.0-"
_FLAG = "--mimic_dir"


def read_mimic(folder: str, options: LabelOptions) -> LabelTable:
    """Joins split, chexpert and metadata: one row an image, its labels those of its study.

    The group is the subject_id, unless the options name another column. Extra columns are looked
    for in the metadata, then in the findings.

    Args:
        folder: where the three files are, local or gs://; with or without `.gz`.
        options: which heads, and what blank and -1 mean.

    Returns:
        A row for each image of the split file. The label of a study that the findings leave out is
        NaN.

    Raises:
        UsageError: a file or a column is missing.
    """
    studies = _Studies(folder, options)
    images = _Columns(
        _open(folder, "metadata"),
        "dicom_id",
        tuple(name for name in options.extra_columns if name not in studies.extras),
    )
    split = _open(folder, "split")
    dicom, study, subject, name = (
        split.index(column) for column in ("dicom_id", "study_id", "subject_id", "split")
    )
    group = split.index(options.group_column) if options.group_column else subject
    table = LabelTable(split.path, options.heads, [], [], [], [], np.empty(0))
    table.extras.update({column: [] for column in options.extra_columns})
    unknown = np.full(len(options.heads), np.nan, np.float32)
    values = []
    for line, row in split:
        key = row[dicom].strip()
        table.keys.append(key)
        table.lines.append(line)
        table.splits.append(row[name].strip())
        table.groups.append(row[group].strip())
        values.append(studies.labels.get(row[study].strip(), unknown))
        for column in options.extra_columns:
            at, of = (studies.extras[column], row[study].strip()) if (
                column in studies.extras
            ) else (images.values[column], key)  # fmt: skip
            table.extras[column].append(at.get(of, ""))
    if not values:
        raise UsageError(f"{_FLAG}: {split.path} has no rows")
    table.values = np.stack(values)
    return table


class _Studies:
    """The findings, by study."""

    def __init__(self, folder: str, options: LabelOptions) -> None:
        rows = _open(folder, "chexpert")
        study = rows.index("study_id")
        columns = [rows.index(head) for head in options.heads]
        extras = [name for name in options.extra_columns if name in rows.header]
        places = {name: rows.index(name) for name in extras}
        self.labels: dict[str, np.ndarray] = {}
        self.extras: dict[str, dict[str, str]] = {name: {} for name in extras}
        for line, row in rows:
            key = row[study].strip()
            self.labels[key] = np.array(
                [
                    label_of(row[c], options, f"{rows.path} line {line}, column {rows.header[c]}")
                    for c in columns
                ],
                np.float32,
            )
            for name, place in places.items():
                self.extras[name][key] = row[place].strip()


class _Columns:
    """Some columns of a table as text, by key."""

    def __init__(self, rows: CsvRows, key: str, names: tuple[str, ...]) -> None:
        at = rows.index(key)
        places = {name: rows.index(name) for name in names}
        self.values: dict[str, dict[str, str]] = {name: {} for name in names}
        if not names:
            return
        for _, row in rows:
            for name, place in places.items():
                self.values[name][row[at].strip()] = row[place].strip()


def _open(folder: str, name: str) -> CsvRows:
    """Opens one of the files, compressed as published or unpacked."""
    for suffix in (".csv.gz", ".csv"):
        path = storage.join(folder, f"{_PREFIX}{name}{suffix}")
        if storage.exists(path):
            return CsvRows(path, _FLAG)
    raise UsageError(f"{_FLAG} {folder} has no {_PREFIX}{name}.csv.gz")
