"""`predictions.csv`: the probabilities of each image, with its labels where they are known.

| column | content |
| --- | --- |
| `dicom_id`, `image_id` | the image, as the embeddings name it |
| `source` | the set of embeddings; absent where there is only one |
| `split` | as in the labels |
| `group` | a number: the same for all images of a patient; it does not identify the patient |
| `<head>_label` | 1, 0, or empty; absent where no labels were given |
| `<head>_probability` | 0..1 |
| `<head>_class` | 1 from the threshold on, else 0; absent without one |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cxr_embed import storage
from cxr_embed.embeddings.csv_table import CsvRows
from cxr_embed.errors import UsageError
from cxr_embed.heads import saved
from cxr_embed.heads.dataset import Labelled, join
from cxr_embed.heads.labels import LabelTable
from cxr_embed.heads.mapped import MappedEmbeddings

_IMAGE_COLUMNS = ("dicom_id", "image_id")
_LABEL_TEXT = {0.0: "0", 1.0: "1"}


@dataclass
class Predictions:
    """Probabilities of several heads for many images.

    Attributes:
        heads: names of the heads.
        ids: dicom ids.
        image_ids: paths or URIs of the images.
        probabilities: float64 (n, heads), 0..1.
        labels: float32 (n, heads), NaN where there is none; None without labels.
        splits: the split of each image; empty where it is unknown.
        groups: int64 (n,), the patient of each image.
        extras: further columns, as text, for subgroups; they are not written.
        sources: the set of embeddings that each image is from, as text; None of a single set.
        thresholds: by head, the probability from which on an image counts as positive.
    """

    heads: tuple[str, ...]
    ids: list[str]
    image_ids: list[str]
    probabilities: np.ndarray
    labels: np.ndarray | None
    splits: np.ndarray
    groups: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    sources: np.ndarray | None = None
    thresholds: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, head: str, split: str | None) -> np.ndarray:
        """Returns the places of images that have a label of a head, in one split or in all."""
        if self.labels is None:
            return np.arange(0)
        known = ~np.isnan(self.labels[:, self.heads.index(head)])
        return np.flatnonzero(known & (self.splits == split) if split is not None else known)

    def head(self, name: str, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels, float64, and probabilities of a head for some images."""
        assert self.labels is not None
        column = self.heads.index(name)
        return self.labels[at, column].astype(np.float64), self.probabilities[at, column]

    def to_csv(self) -> bytes:
        """Returns the file's content."""
        header = [*_IMAGE_COLUMNS]
        columns: list[Sequence[object]] = [self.ids, self.image_ids]
        if self.sources is not None:
            header.append("source")
            columns.append(self.sources.tolist())
        if self.labels is not None:
            header += ["split", "group"]
            columns += [self.splits.tolist(), self.groups.tolist()]
        for number, head in enumerate(self.heads):
            if self.labels is not None:
                header.append(saved.label_column(head))
                columns.append([_LABEL_TEXT.get(v, "") for v in self.labels[:, number].tolist()])
            header.append(saved.probability_column(head))
            columns.append([saved.probability_text(v) for v in self.probabilities[:, number]])
            if head in self.thresholds:
                header.append(saved.class_column(head))
                positive = self.probabilities[:, number] >= self.thresholds[head]
                columns.append(positive.astype(int).tolist())
        return saved.csv_bytes(header, zip(*columns, strict=True))


def attach(predictions: Predictions, table: LabelTable) -> Labelled:
    """Adds patients and subgroups from labels to predictions, and labels where they have none.

    Args:
        predictions: changed in place; labels that they already have are kept.
        table: its heads are those of the predictions, or none.

    Returns:
        The join, which lists what did not match.

    Raises:
        UsageError: no label matches an image, or labels contradict each other.
    """
    images = MappedEmbeddings(
        table.source, predictions.ids, predictions.image_ids, np.empty((len(predictions), 0)), None
    )
    labelled = join(images, table, allow_shared_patients=True)
    rows = labelled.rows
    for name, column in labelled.extras.items():
        predictions.extras[name] = np.full(len(predictions), "", dtype=object)
        predictions.extras[name][rows] = column
    if labelled.has_groups:
        # An image without a label counts as a patient of its own.
        predictions.groups = np.arange(len(predictions), dtype=np.int64) + len(predictions)
        predictions.groups[rows] = labelled.groups
    if predictions.labels is None and table.heads:
        predictions.labels = np.full((len(predictions), len(table.heads)), np.nan, np.float32)
        predictions.labels[rows] = labelled.labels
        predictions.splits = np.full(len(predictions), "", dtype=object)
        predictions.splits[rows] = labelled.splits
    return labelled


def read_predictions(path: str, flag: str = "--predictions") -> Predictions:
    """Reads a predictions.csv.

    Args:
        path: the file, or the output folder that holds it; local or in a bucket.
        flag: the flag that gave the path, for messages.

    Raises:
        UsageError: unreadable, not such a table, or a value out of range.
    """
    if not path.endswith((".csv", ".csv.gz")):
        path = storage.join(path, saved.PREDICTIONS_NAME)
    rows = CsvRows(path, flag)
    suffix = saved.probability_column("")
    heads = tuple(name.removesuffix(suffix) for name in rows.header if name.endswith(suffix))
    if not heads or any(name not in rows.header for name in _IMAGE_COLUMNS):
        raise UsageError(
            f"{flag} {path} is no table of predictions: it needs dicom_id, image_id and "
            f"<head>{suffix}"
        )
    cells = [(line, row) for line, row in rows]
    if not cells:
        raise UsageError(f"{flag} {path} has no rows")
    at = {name: number for number, name in enumerate(rows.header)}
    probabilities = np.array(
        [
            [_number(row[at[head + suffix]], path, line) for head in heads]
            for line, row in cells
        ]
    )  # fmt: skip
    labelled = [head for head in heads if saved.label_column(head) in at]
    labels = None
    if labelled:
        labels = np.full((len(cells), len(heads)), np.nan, np.float32)
        for number, head in enumerate(heads):
            if head in labelled:
                column = at[saved.label_column(head)]
                labels[:, number] = [_label(row[column], path, line) for line, row in cells]
    splits = [row[at["split"]] if "split" in at else "" for _, row in cells]
    groups = [row[at["group"]] if "group" in at else f"\0{i}" for i, (_, row) in enumerate(cells)]
    return Predictions(
        heads,
        [row[at["dicom_id"]] for _, row in cells],
        [row[at["image_id"]] for _, row in cells],
        probabilities,
        labels,
        np.array(splits, dtype=object),
        np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64),
        sources=np.array([row[at["source"]] for _, row in cells], dtype=object)
        if "source" in at
        else None,
    )


def _number(cell: str, path: str, line: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise UsageError(f"{path} line {line}: {cell!r} is no probability")
    return value


def _label(cell: str, path: str, line: int) -> float:
    if cell.strip() == "":
        return np.nan
    if cell in ("0", "1"):
        return float(cell)
    raise UsageError(f"{path} line {line}: {cell!r} is no label; 1, 0 and empty are")
