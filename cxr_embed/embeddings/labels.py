"""Labels to embeddings: every key that people use, and a word on each row that found no partner."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxr_embed import storage
from cxr_embed.elements import RECORD_SUFFIX, dicom_id_of
from cxr_embed.embeddings.mimic_paths import MimicIds, mimic_ids
from cxr_embed.errors import UsageError, one_line

if TYPE_CHECKING:
    import pandas as pd

NO_LABEL = -1


class Match(NamedTuple):
    """Which label belongs to which embedding.

    Attributes:
        label_of_row: for each embedding the label's row, or NO_LABEL; int64 of shape (n,).
        unmatched: labels' rows that belong to no embedding.
    """

    label_of_row: np.ndarray
    unmatched: list[int]


def read_table(labels: Any) -> pd.DataFrame:
    """Returns labels as a data frame: one that is given as it is, a CSV file with texts as texts.

    Args:
        labels: a DataFrame, or the path of a CSV file, local or gs://, .gz or not.

    Raises:
        UsageError: pandas is missing, or the file cannot be read.
    """
    pandas = import_pandas()
    if isinstance(labels, pandas.DataFrame):
        named = [name for name in labels.index.names if name is not None]
        return labels.reset_index() if named else labels.reset_index(drop=True)
    path = str(labels)
    try:
        data = storage.read_bytes(path)
        compression = "gzip" if data[:2] == b"\x1f\x8b" else None
        # Types are guessed column by column, except that an id keeps its leading zeros.
        texts = pandas.read_csv(
            io.BytesIO(data), dtype=str, compression=compression, keep_default_na=False
        )
        table = pandas.read_csv(io.BytesIO(data), compression=compression)
    except OSError as error:
        raise UsageError(f"labels {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"labels {path} are not a CSV table: {one_line(error)}") from error
    for name in table.columns:
        if any(text[:1] == "0" and text[1:].isdigit() for text in texts[name]):
            table[name] = texts[name]
    return table


def import_pandas() -> Any:
    """Returns pandas.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("pandas is not installed: pip install 'cxr-embed[explore]'") from error
    return pandas


def column_texts(column: pd.Series) -> list[str]:
    """Returns a column's values as texts, empty where there is none."""
    texts = column.astype(object).where(column.notna(), "")
    return [str(value) for value in texts]


def key_column(table: pd.DataFrame, dicom_ids: Sequence[str]) -> str:
    """Returns the column whose values name the most images.

    Columns of numbers count only where no text does: labels are numbers, and images may be, too.

    Raises:
        UsageError: none of them names one.
    """
    known = set(dicom_ids)
    counts: dict[str, tuple[bool, int]] = {}
    for name in table.columns:
        named = {_id_of(key) for key in column_texts(table[name])} & known
        is_text = table[name].dtype.kind not in "iufb"
        counts[str(name)] = (bool(named) and is_text, len(named))
    best = max(counts, key=lambda name: counts[name], default="")
    if not best or not counts[best][1]:
        example = f"{next(iter(dicom_ids), '')!r}"
        raise UsageError(
            f"no column of the labels ({one_line(', '.join(counts))}) names an image by its URI, "
            f"path, file name or dicom id, such as {example}; pass on='...' to join by another"
        )
    return best


def match_images(keys: Sequence[str], dicom_ids: Sequence[str], image_ids: Sequence[str]) -> Match:
    """Matches labels that name images: by full URI, relative path, file name or dicom id.

    A name that only one label and one image have decides alone, wherever either lies. Where a
    name comes more than once, the folders decide: one path must end as the other one reads.

    Args:
        keys: the labels' keys.
        dicom_ids: the embeddings' ids.
        image_ids: the embeddings' paths or URIs.

    Raises:
        UsageError: a label that fits several images, or an image that several labels fit.
    """
    labels_of, rows_of = defaultdict(list), defaultdict(list)
    for label, key in enumerate(keys):
        labels_of[_id_of(key)].append(label)
    for row, name in enumerate(dicom_ids):
        rows_of[name].append(row)
    label_of_row = np.full(len(dicom_ids), NO_LABEL, np.int64)
    unmatched = []
    for name, labels in labels_of.items():
        rows = rows_of.get(name, [])
        for label in labels:
            fitting = rows
            if len(rows) > 1 or len(labels) > 1:
                fitting = [row for row in rows if _same_path(keys[label], image_ids[row])]
            if len(fitting) > 1:
                raise UsageError(
                    f"the label of {keys[label]} fits {len(fitting)} images, such as "
                    f"{image_ids[fitting[0]]} and {image_ids[fitting[1]]}: key it by a longer path"
                )
            if not fitting:
                unmatched.append(label)
            elif label_of_row[fitting[0]] != NO_LABEL:
                raise UsageError(f"the labels have several rows for {keys[label]}")
            else:
                label_of_row[fitting[0]] = label
    return Match(label_of_row, sorted(unmatched))


def match_groups(keys: Sequence[str], column: str, image_ids: Sequence[str]) -> Match:
    """Matches labels of MIMIC's studies or subjects: one label, all images of it.

    Args:
        keys: the labels' keys, such as `50414267` or `s50414267`.
        column: `study_id` or `subject_id`.
        image_ids: the embeddings' paths or URIs, in MIMIC's layout.

    Raises:
        UsageError: several labels for one study or subject.
    """
    label_of: dict[int, int] = {}
    for label, key in enumerate(keys):
        digits = key.lstrip("ps").removesuffix(".0")
        number = int(digits) if digits.isdigit() else NO_LABEL - label - 1
        if number in label_of:
            raise UsageError(f"the labels have several rows for {column} {key}")
        label_of[number] = label
    field = MimicIds._fields.index(column)
    label_of_row = np.full(len(image_ids), NO_LABEL, np.int64)
    for row, image_id in enumerate(image_ids):
        if ids := mimic_ids(image_id):
            label_of_row[row] = label_of.get(ids[field], NO_LABEL)
    unmatched = set(range(len(keys))) - set(label_of_row.tolist())
    return Match(label_of_row, sorted(unmatched))


def _id_of(key: str) -> str:
    return dicom_id_of(key.removesuffix(RECORD_SUFFIX))


def _same_path(one: str, other: str) -> bool:
    """Whether the shorter path is the end of the longer one; extensions are left aside."""
    first, second = _parts(one), _parts(other)
    shared = min(len(first), len(second))
    return first[-shared:] == second[-shared:]


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).parts
    return (*(part for part in parts[:-1] if part not in ("/", ".")), _id_of(path))
