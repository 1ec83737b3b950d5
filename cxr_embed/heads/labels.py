"""Labels of images: what a labels CSV says, row by row, checked and never guessed.

A labels CSV has the columns `image_id` and `split`, one column a head (1, 0 or blank), and any
others, such as a patient or what subgroups are made of.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cxr_embed import storage
from cxr_embed.errors import UsageError

ID_COLUMNS = ("image_id", "dicom_id")
SPLIT_COLUMN = "split"
GROUP_COLUMNS = ("patient_id", "subject_id")

# CheXpert's labeller writes -1 where a report is unsure.
UNCERTAIN = -1.0
UNCERTAIN_POLICIES = {"missing": np.nan, "negative": 0.0, "positive": 1.0}
BLANK_POLICIES = {"missing": np.nan, "negative": 0.0}


@dataclass(frozen=True)
class LabelOptions:
    """How to read labels.

    Attributes:
        heads: names of the heads: columns.
        group_column: what tells patients apart; None takes one of GROUP_COLUMNS if it is there.
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
        keys: what names the image: a URI, a path, a file name or a dicom id.
        lines: the line of the file that each row is from.
        splits: names of the splits.
        groups: patients; empty strings where nobody says.
        values: float32 of shape (rows, heads): 0, 1, or NaN where there is no label.
        extras: further columns, as text.
    """

    source: str
    heads: tuple[str, ...]
    keys: list[str]
    lines: list[int]
    splits: list[str]
    groups: list[str]
    values: np.ndarray
    extras: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


class CsvRows:
    """A CSV file, plain or gzip-compressed, local or gs://, with its header.

    Raises:
        UsageError: it cannot be read, or has no header or no rows.
    """

    def __init__(self, path: str, flag: str) -> None:
        self.path = path
        text = _read_text(path, flag)
        self._reader = csv.reader(io.StringIO(text, newline=""))
        self.header = [name.strip() for name in next(self._reader, [])]
        if not any(self.header):
            raise UsageError(f"{flag} {path} is empty")
        repeated = {name for name in self.header if self.header.count(name) > 1}
        if repeated:
            raise UsageError(f"{flag} {path} has the column {min(repeated)} twice")

    def index(self, column: str) -> int:
        """Returns a column's place; also where only case, blanks or underscores differ.

        Raises:
            UsageError: it is not there; the message names those that are.
        """
        if column in self.header:
            return self.header.index(column)
        alike = [i for i, name in enumerate(self.header) if _plain(name) == _plain(column)]
        if len(alike) == 1:
            return alike[0]
        raise UsageError(
            f"{self.path} has no column {column}; its columns are {', '.join(self.header)}"
        )

    def find(self, columns: Sequence[str]) -> int | None:
        """Returns the place of the first of some columns that is there, or None."""
        return next((self.header.index(name) for name in columns if name in self.header), None)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yields line number and cells of each row that is not blank."""
        try:
            for row in self._reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(self.header):
                    raise UsageError(
                        f"{self.path} line {self._reader.line_num} has {len(row)} cells, its "
                        f"header has {len(self.header)}"
                    )
                yield self._reader.line_num, row
        except csv.Error as error:
            raise UsageError(f"{self.path} line {self._reader.line_num}: {error}") from error


def _read_text(path: str, flag: str) -> str:
    try:
        data = storage.read_bytes(path)
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{flag} {path} does not exist") from error
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag} {path} cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag} {path} is not UTF-8 text") from error


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "")


def read_labels_csv(path: str, options: LabelOptions, flag: str = "--labels_csv") -> LabelTable:
    """Reads a labels CSV.

    Args:
        path: local or gs://, plain or gzip-compressed.
        options: which columns, and what blank and -1 mean.
        flag: what the user said it with, for messages.

    Returns:
        All rows, whatever their split.

    Raises:
        UsageError: unreadable, a column missing, or a label that is none.
    """
    rows = CsvRows(path, flag)
    id_column = rows.find(ID_COLUMNS)
    id_column = rows.index(ID_COLUMNS[0]) if id_column is None else id_column
    if options.needs_split:
        rows.index(SPLIT_COLUMN)
    split_column = rows.find([SPLIT_COLUMN])
    columns = [rows.index(head) for head in options.heads]
    if options.group_column:
        group_column: int | None = rows.index(options.group_column)
    else:
        group_column = rows.find(GROUP_COLUMNS)
    extra_columns = {name: rows.index(name) for name in options.extra_columns}

    table = LabelTable(path, options.heads, [], [], [], [], np.empty(0), {})
    table.extras.update({name: [] for name in extra_columns})
    values: list[list[float]] = []
    for line, row in rows:
        where = f"{path} line {line}"
        key = row[id_column].strip()
        if not key:
            raise UsageError(f"{where} names no image")
        table.keys.append(key)
        table.lines.append(line)
        table.splits.append(row[split_column].strip() if split_column is not None else "")
        table.groups.append(row[group_column].strip() if group_column is not None else "")
        values.append(
            [
                label_of(row[column], options, f"{where}, column {rows.header[column]}")
                for column in columns
            ]
        )
        for name, column in extra_columns.items():
            table.extras[name].append(row[column].strip())
    if not values:
        raise UsageError(f"{flag} {path} has a header and no rows")
    table.values = np.array(values, np.float32).reshape(len(values), len(columns))
    return table


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
