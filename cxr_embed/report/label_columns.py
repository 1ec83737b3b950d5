"""Columns of a table of labels, one value for each embedding, and what found no partner."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cxr_embed import storage
from cxr_embed.elements import RECORD_SUFFIX, dicom_id_of
from cxr_embed.errors import UsageError, one_line

# MIMIC's tables have a row for each study, and its images lie in .../s50414267/<dicom_id>.dcm.
_STUDY = re.compile(r"/s(\d{8})/")
_STUDY_COLUMN = "study_id"


@dataclass(frozen=True)
class LabelColumns:
    """Labels put to embeddings.

    Attributes:
        columns: for each column its values, one for each embedding, empty where there is none.
        key: the column that named the images.
        unmatched: rows of the table that belong to no embedding.
        unlabelled: embeddings without a row.
    """

    columns: dict[str, list[str]]
    key: str
    unmatched: int
    unlabelled: int


def read_label_columns(path: str, ids: Sequence[str], image_ids: Sequence[str]) -> LabelColumns:
    """Reads a CSV file of labels.

    Args:
        path: local or gs://. One of its columns names the images, by dicom id, file name or path;
            or `study_id` names MIMIC's studies.
        ids: the embeddings' dicom ids.
        image_ids: the embeddings' paths.

    Raises:
        UsageError: it cannot be read, or no column of it names an image.
    """
    table = _read(path)
    names = list(table[0])
    known = set(ids)
    counts = {name: sum(_id_of(row[name]) in known for row in table) for name in names}
    key = max(counts, key=lambda name: counts[name])
    if counts[key]:
        keys, of_rows = list(ids), [_id_of(row[key]) for row in table]
    elif _STUDY_COLUMN in names:
        key = _STUDY_COLUMN
        studies = [_STUDY.search(image_id) for image_id in image_ids]
        keys = [match[1] if match else "" for match in studies]
        of_rows = [row[key].lstrip("s") for row in table]
    else:
        raise UsageError(
            f"--labels_csv {path}: no column ({one_line(', '.join(names))}) names an image by its "
            f"dicom id, file name or path, such as {next(iter(ids), '')!r}"
        )
    row_of = {name: row for name, row in zip(of_rows, table, strict=True) if name}
    matched = [row_of.get(name, {}) if name else {} for name in keys]
    columns = {
        name: [row.get(name, "").strip() for row in matched] for name in names if name != key
    }
    used = set(keys)
    unmatched = sum(name not in used for name in of_rows)
    return LabelColumns(columns, key, unmatched, sum(not row for row in matched))


def _read(path: str) -> list[dict[str, str]]:
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
        table = [
            {name: value or "" for name, value in row.items() if name}
            for row in csv.DictReader(io.StringIO(text), restval="")
        ]
    except OSError as error:
        raise UsageError(
            f"--labels_csv {path} cannot be read: {error.strerror or error}"
        ) from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"--labels_csv {path} is not a CSV table: {one_line(error)}") from error
    if not table or not table[0]:
        raise UsageError(f"--labels_csv {path} has no rows")
    return table


def _id_of(key: str) -> str:
    return dicom_id_of(key.strip().removesuffix(RECORD_SUFFIX))
