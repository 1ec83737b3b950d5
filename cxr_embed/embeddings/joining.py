"""Which label belongs to which embedding: the one set of rules for every verb.

A label's key and an embedding's `image/id` are paths of which either may be the longer: one must
end, folder by folder, in the other. `gs://b/files/p10/x.dcm`, `files/p10/x.dcm`, `x.dcm`,
`x.tfrecord` and the dicom id `x` all name the same image, and `other/x.dcm` does not. Where no
column names an image, a label may belong to a study or a subject of MIMIC-CXR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from cxr_embed import file_types
from cxr_embed.elements import RECORD_SUFFIX, dicom_id_of
from cxr_embed.embeddings.mimic_paths import MimicIds, mimic_ids
from cxr_embed.errors import UsageError, one_line

NO_LABEL = -1

# Columns that are the key by their name alone, the finer one first: of one image, or of a group.
IMAGE_COLUMNS = ("image_id", "dicom_id")
GROUP_COLUMNS = ("study_id", "subject_id")


class LabelJoin(NamedTuple):
    """Which row of the labels belongs to which embedding.

    Attributes:
        on: the column that is the key.
        keys: the key of each row of the labels.
        label_of_row: int64 of shape (n,), for each embedding its row of the labels, or NO_LABEL.
        unmatched: rows of the labels that belong to no embedding, in order.
    """

    on: str
    keys: list[str]
    label_of_row: np.ndarray
    unmatched: list[int]

    @property
    def unlabelled(self) -> list[int]:
        """The embeddings without a label."""
        return [int(row) for row in np.flatnonzero(self.label_of_row == NO_LABEL)]


class Source(NamedTuple):
    """Where labels come from, for messages.

    Attributes:
        name: a file's path, or what a person calls the labels.
        lines: the file's line of each row; without them, rows are counted from 0.
        files: the file of each row, where there are several.
    """

    name: str = "the labels"
    lines: Sequence[int] | None = None
    files: Sequence[str] = ()

    def where(self, *rows: int) -> str:
        """Returns `labels.csv line 3` or `labels.csv lines 3 and 5`."""
        if self.files and self.lines is not None:
            return " and ".join(f"{self.files[row]} line {self.lines[row]}" for row in rows)
        unit, numbers = ("line", self.lines) if self.lines is not None else ("row", None)
        shown = " and ".join(str(numbers[row] if numbers is not None else row) for row in rows)
        return f"{self.name} {unit}{'s' if len(rows) > 1 else ''} {shown}"


def join_labels(
    columns: Mapping[str, Sequence[str]],
    ids: Sequence[str],
    image_ids: Sequence[str],
    *,
    on: str | None = None,
    source: Source | None = None,
) -> LabelJoin:
    """Joins the rows of a table of labels with embeddings.

    The key is the column `on`; without it `image_id` or `dicom_id` if one of them names an image,
    else the column that names the most images, else `study_id` or `subject_id`, where one row is
    of all images of the study or subject.

    Args:
        columns: the table: for each column its cells, as text.
        ids: the embeddings' dicom ids.
        image_ids: the embeddings' paths or URIs, in the same order.
        on: the column with the key.
        source: where the labels come from, for messages.

    Returns:
        The join. Rows that are equal in every cell count as one.

    Raises:
        UsageError: no column is the key; no row belongs to an embedding; a row names no image; a
            row's key fits several images; different rows have the same key.
    """
    source = source or Source()
    index = ImageIndex(ids, image_ids)
    if on is None:
        on = _key_column(columns, index)
    elif on not in columns:
        raise UsageError(
            one_line(f"{source.name} has no column {on}; its columns are {', '.join(columns)}")
        )
    if on is None:
        raise UsageError(one_line(
            f"no column of {source.name} ({', '.join(columns)}) names an image by its URI, path, "
            f"file name or dicom id, such as {next(iter(ids), '')!r}"
        ))  # fmt: skip
    keys = [key.strip() for key in columns[on]]
    if "" in keys:
        raise UsageError(f"{source.where(keys.index(''))} names no image: {on} is empty")
    if on in GROUP_COLUMNS:
        rows_of = _rows_of_groups(keys, on, image_ids)
    else:
        rows_of = [[] if (row := index.find(key)) is None else [row] for key in keys]
    label_of_row = np.full(len(ids), NO_LABEL, np.int64)
    unmatched = []
    for label, rows in enumerate(rows_of):
        if not rows:
            unmatched.append(label)
            continue
        # Rows of a study or subject are always labelled together, so that the first one is enough.
        other = int(label_of_row[rows[0]])
        if other == NO_LABEL:
            label_of_row[rows] = label
        elif any(cells[other] != cells[label] for cells in columns.values()):
            raise UsageError(
                f"{source.where(other, label)} are different rows of the same image or study, "
                f"{keys[label]}"
            )
    if len(unmatched) == len(keys):
        raise UsageError(one_line(
            f"none of the {len(keys)} labels in {source.name} is of an image that has an "
            f"embedding: a label's {on} is {next(iter(keys), '')}, an embedding's image_id is "
            f"{next(iter(image_ids), '')}"
        ))  # fmt: skip
    return LabelJoin(on, keys, label_of_row, unmatched)


def _key_column(columns: Mapping[str, Sequence[str]], index: ImageIndex) -> str | None:
    """Returns the column with the key; None where there is none."""
    named = [name for name in IMAGE_COLUMNS if name in columns]
    for name in named:
        if index.count(columns[name]):
            return name
    # Labels are numbers, and images may be, too: numbers count only where no text names an image.
    counts = {
        name: (not _is_numeric(cells), index.count(cells))
        for name, cells in columns.items()
        if name not in GROUP_COLUMNS
    }
    found = [name for name in counts if counts[name][1]]
    if found:
        return max(found, key=lambda name: counts[name])
    return next((name for name in (*named, *GROUP_COLUMNS) if name in columns), None)


def _is_numeric(cells: Sequence[str]) -> bool:
    try:
        for cell in cells:
            float(cell or 0)
    except ValueError:
        return False
    return True


def _rows_of_groups(keys: Sequence[str], column: str, image_ids: Sequence[str]) -> list[list[int]]:
    """Returns for each key, such as `50414267` or `s50414267`, the embeddings of its group."""
    field = MimicIds._fields.index(column)
    rows_of: dict[str, list[int]] = {}
    for row, image_id in enumerate(image_ids):
        if ids := mimic_ids(image_id):
            rows_of.setdefault(str(ids[field]), []).append(row)
    # pandas makes `50414267.0` of a column of numbers with gaps.
    return [rows_of.get(key.lstrip("ps").removesuffix(".0"), []) for key in keys]


class ImageIndex:
    """Finds embeddings by any form of their images' names.

    Args:
        ids: dicom ids.
        image_ids: paths or URIs of the images, in the same order.
    """

    def __init__(self, ids: Sequence[str], image_ids: Sequence[str]) -> None:
        self._image_ids = image_ids
        self._rows: dict[str, list[int]] = {}
        for row, (name, path) in enumerate(zip(ids, image_ids, strict=True)):
            for key in {name, _stem(path)}:
                self._rows.setdefault(key, []).append(row)

    def find(self, key: str) -> int | None:
        """Returns the row of the embedding that `key` names, or None.

        Raises:
            UsageError: it names several.
        """
        rows = self._candidates(key)
        for narrower in (self._same_extension, self._same_path):
            if len(rows) > 1:
                rows = narrower(key, rows) or rows
        if len(rows) > 1:
            named = " and ".join(self._image_ids[row] for row in rows[:2])
            more = f" (and {len(rows) - 2} more)" if len(rows) > 2 else ""
            raise UsageError(
                f"{key} names several images, {named}{more}: name one by more of its path"
            )
        return rows[0] if rows else None

    def count(self, keys: Sequence[str]) -> int:
        """Returns how many different keys name an image, or several."""
        return sum(bool(self._candidates(key)) for key in {key.strip() for key in keys} - {""})

    def _candidates(self, key: str) -> list[int]:
        rows = self._rows.get(_stem(key)) or self._rows.get(PurePosixPath(key).name, [])
        if len(rows) == 1 and "/" not in key:
            return rows
        return [row for row in rows if _agree(key, self._image_ids[row])]

    def _same_extension(self, key: str, rows: list[int]) -> list[int]:
        return [row for row in rows if _extension(key) == _extension(self._image_ids[row])]

    def _same_path(self, key: str, rows: list[int]) -> list[int]:
        return [row for row in rows if self._image_ids[row] == key]


def _stem(path: str) -> str:
    return dicom_id_of(path.removesuffix(RECORD_SUFFIX))


def _extension(path: str) -> str:
    found = file_types.IMAGE_NAME.search(PurePosixPath(path).name)
    return found[0].lower() if found else ""


def _agree(one: str, other: str) -> bool:
    """Whether the shorter list of folders is the end of the longer one."""
    short, long = sorted((_folders(one), _folders(other)), key=len)
    return not short or long[-len(short) :] == short


def _folders(path: str) -> list[str]:
    parts = path.partition("://")[2] or path
    return [part for part in parts.split("/")[:-1] if part not in ("", ".", "..")]
