"""Embeddings of many images, ready for NumPy: neighbours, joins with labels, data frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cxr_embed.embeddings import csv_table
from cxr_embed.embeddings import neighbours as search
from cxr_embed.embeddings.joining import NO_LABEL, ImageIndex, Source, join_labels
from cxr_embed.embeddings.mimic_paths import mimic_ids
from cxr_embed.embeddings.vectors import normalise
from cxr_embed.errors import UsageError
from cxr_embed.records import utf8_text

if TYPE_CHECKING:
    import pandas as pd


class Neighbour(NamedTuple):
    """An image near to another one.

    Attributes:
        dicom_id: its id.
        image_id: its path or URI.
        cosine: cosine similarity of the two embeddings, 1 is the same direction.
        row: its row in the embeddings.
    """

    dicom_id: str
    image_id: str
    cosine: float
    row: int


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of many images, row by row.

    Attributes:
        ids: dicom ids, the record files' names. In an output with folders, several images may
            have the same.
        image_ids: paths or URIs of the inputs, the feature `image/id`.
        values: float32 of shape (n, d).

    Examples:
        >>> vectors = np.array([[1, 0], [0, 2], [3, 1]], np.float32)
        >>> found = Embeddings(["a", "b", "c"], ["in/a.dcm", "in/b.dcm", "in/c.dcm"], vectors)
        >>> found.nearest("a", k=1)[0].image_id
        'in/c.dcm'
        >>> found.normalised().values[1].tolist()
        [0.0, 1.0]
        >>> import pandas as pd
        >>> joined = found.join(pd.DataFrame({"file": ["b.jpg", "d.jpg"], "effusion": [1, 0]}))
        >>> print(joined)
        1 embeddings have labels (by file), 2 have none; 1 labels belong to no embedding
        >>> joined.labels.effusion.tolist(), joined.unmatched_labels
        ([1], ['d.jpg'])
    """

    ids: list[str]
    image_ids: list[str]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, key: str) -> int:
        """Returns the row of one image.

        Args:
            key: a dicom id, a file name, or a path or URI as in `image_ids`.

        Raises:
            UsageError: no such image, or several.
        """
        for names in (self.image_ids, self.ids):
            rows = [row for row, name in enumerate(names) if name == key]
            if len(rows) == 1:
                return rows[0]
        found = ImageIndex(self.ids, self.image_ids).find(key)
        if found is not None:
            return found
        raise UsageError(f"no embedding of {key} among these {len(self)}")

    def take(self, rows: Sequence[int] | np.ndarray) -> Embeddings:
        """Returns some rows, copied, in the order given; a mask of booleans does, too."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return Embeddings(
            [self.ids[row] for row in chosen],
            [self.image_ids[row] for row in chosen],
            self.values[chosen],
        )

    def normalised(self) -> Embeddings:
        """Returns the embeddings scaled to length 1 (L2), copied; zeros stay zeros."""
        return Embeddings(self.ids, self.image_ids, normalise(self.values.copy()))

    def nearest(self, key: str, k: int = 10) -> list[Neighbour]:
        """Finds the images most similar to one of these.

        Args:
            key: what `row_of` takes.
            k: how many, fewer where there are fewer.

        Returns:
            The nearest by cosine, most similar first, without the image itself. Exact.

        Raises:
            UsageError: no such image, or several.
        """
        row = self.row_of(key)
        return self._neighbours(self.values[row], k, row)

    def nearest_to(self, vector: np.ndarray, k: int = 10) -> list[Neighbour]:
        """Finds the images most similar to an embedding of shape (d,); see `nearest`.

        Raises:
            UsageError: the vector has another size than these embeddings.
        """
        if np.shape(vector) != self.values.shape[1:]:
            raise UsageError(
                f"a vector of shape {np.shape(vector)} among embeddings of "
                f"{self.values.shape[1]} floats"
            )
        return self._neighbours(np.asarray(vector, np.float32), k, None)

    def _neighbours(self, vector: np.ndarray, k: int, skip: int | None) -> list[Neighbour]:
        leave_out = None if skip is None else np.array([skip])
        found = search.nearest(self.values, vector[np.newaxis], k, leave_out=leave_out)
        return [
            Neighbour(self.ids[row], self.image_ids[row], float(cosine), int(row))
            for row, cosine in zip(found.rows[0], found.similarities[0], strict=True)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Returns a data frame with the columns that `cxr-embed pack` writes.

        Returns:
            `dicom_id`, `image_id`, `subject_id` and `study_id` (Int64; missing where a path is
            not MIMIC's), and `embedding`, whose cells are rows of `values`, not copied.

        Raises:
            UsageError: pandas is not installed.
        """
        pandas = csv_table.import_pandas()
        found = [mimic_ids(image_id) for image_id in self.image_ids]
        return pandas.DataFrame(
            {
                "dicom_id": pandas.array([utf8_text(name) for name in self.ids], "str"),
                "image_id": pandas.array([utf8_text(name) for name in self.image_ids], "str"),
                "subject_id": pandas.array([i and i.subject_id for i in found], "Int64"),
                "study_id": pandas.array([i and i.study_id for i in found], "Int64"),
                "embedding": pandas.Series(list(self.values), dtype=object),
            }
        )

    def join(self, labels: pd.DataFrame | str | os.PathLike[str], on: str | None = None) -> Joined:
        """Gives each embedding its label, and lists what has no partner.

        Args:
            labels: a DataFrame, or the path of a CSV file, local or in a bucket. One row an image,
                whose key is a full URI, a relative path, a file name or a dicom id; extensions do
                not matter, so that labels of `x.jpg` fit `x.dcm`.
            on: the column with the key; without it, `image_id` or `dicom_id`, or the column that
                names the most images. `study_id` and `subject_id` join MIMIC's tables: one row,
                all images of it. The rules are those of `embeddings.joining`, for all verbs.

        Returns:
            The pairs, and what is left over on both sides.

        Raises:
            UsageError: no such column, no label of any embedding, a key that fits several images,
                or several different rows for one image.
        """
        pandas = csv_table.import_pandas()
        if isinstance(labels, pandas.DataFrame):
            is_named = any(name is not None for name in labels.index.names)
            frame = labels.reset_index(drop=not is_named)
            texts, source = csv_table.frame_texts(frame), Source()
        else:
            path = os.fspath(labels)
            table = csv_table.read_csv_table(path, "labels")
            frame, texts = csv_table.typed_frame(table), table.columns
            source = Source(f"labels {path}", table.lines)
        joined = join_labels(texts, self.ids, self.image_ids, on=on, source=source)
        is_labelled = joined.label_of_row != NO_LABEL
        chosen = frame.iloc[joined.label_of_row[is_labelled]].reset_index(drop=True)
        return Joined(
            embeddings=self.take(is_labelled),
            labels=chosen,
            unmatched_labels=[joined.keys[label] for label in joined.unmatched],
            unlabelled=[self.image_ids[row] for row in joined.unlabelled],
            on=joined.on,
        )


@dataclass(frozen=True)
class Joined:
    """Embeddings with their labels.

    Attributes:
        embeddings: those that have a label.
        labels: their labels, row by row: row i belongs to embedding i.
        unmatched_labels: keys of the labels that belong to no embedding.
        unlabelled: image ids of the embeddings without a label.
        on: the labels' column that decided.
    """

    embeddings: Embeddings
    labels: pd.DataFrame
    unmatched_labels: list[str]
    unlabelled: list[str]
    on: str

    def __str__(self) -> str:
        return (
            f"{len(self.embeddings)} embeddings have labels (by {self.on}), "
            f"{len(self.unlabelled)} have none; {len(self.unmatched_labels)} labels belong to no "
            "embedding"
        )
