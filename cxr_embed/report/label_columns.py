"""Columns of a table of labels, one value for each embedding, and what found no partner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_embed.embeddings.csv_table import read_csv_table
from cxr_embed.embeddings.joining import NO_LABEL, Source, join_labels

_FLAG = "--labels_csv"


@dataclass(frozen=True)
class LabelColumns:
    """Labels joined with embeddings.

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
    """Reads a CSV file of labels and joins it as `embeddings.joining` does.

    Args:
        path: local or in a bucket, plain or gzip-compressed.
        ids: the embeddings' dicom ids.
        image_ids: the embeddings' paths.

    Raises:
        UsageError: it cannot be read, or cannot be joined.
    """
    table = read_csv_table(path, _FLAG)
    joined = join_labels(
        table.columns, ids, image_ids, source=Source(f"{_FLAG} {path}", table.lines)
    )
    columns = {
        name: ["" if label == NO_LABEL else cells[label] for label in joined.label_of_row.tolist()]
        for name, cells in table.columns.items()
        if name != joined.on
    }
    return LabelColumns(columns, joined.on, len(joined.unmatched), len(joined.unlabelled))
