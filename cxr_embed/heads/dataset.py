"""Labels joined with embeddings, by split, and counts of what did not match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cxr_embed.embeddings.joining import NO_LABEL, Source, join_labels
from cxr_embed.errors import UsageError
from cxr_embed.heads.labels import LabelTable
from cxr_embed.heads.mapped import MappedEmbeddings

_SHOWN = 3


@dataclass
class Labelled:
    """Embeddings that have labels.

    Attributes:
        heads: names of the heads.
        rows: int64 (n,), rows of the embeddings' matrix.
        labels: float32 (n, heads): 0, 1, or NaN where there is no label.
        splits: the split of each.
        groups: int64 (n,); images of one patient have the same number.
        has_groups: whether the labels have a column of patients.
        extras: further columns, as text.
        unmatched: keys of labels that no embedding has, with their lines.
        unlabelled: how many embeddings no label names.
        unmatched_files: the file of each of `unmatched`, where the labels are from several.
    """

    heads: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    groups: np.ndarray
    has_groups: bool
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    unmatched: list[tuple[int, str]] = field(default_factory=list)
    unlabelled: int = 0
    unmatched_files: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def of_split(self, split: str) -> np.ndarray:
        """Returns the places of a split's images that have a label of some head."""
        return np.flatnonzero((self.splits == split) & ~np.isnan(self.labels).all(axis=1))

    def part(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows (n,) and labels (n, heads) of a split's images that have a label."""
        at = self.of_split(split)
        return self.rows[at], self.labels[at]


def join(
    embeddings: MappedEmbeddings, table: LabelTable, *, allow_shared_patients: bool = False
) -> Labelled:
    """Joins labels with embeddings.

    Args:
        embeddings: the embeddings.
        table: the labels.
        allow_shared_patients: let a patient's images be in several splits.

    Returns:
        One entry for each embedding that a label names, in the order of the embeddings.

    Raises:
        UsageError: the labels cannot be joined (see `embeddings.joining`), or a patient is in two
            splits.
    """
    joined = join_labels(
        table.columns, embeddings.ids, embeddings.image_ids,
        source=Source(table.source, table.lines, table.files),
    )  # fmt: skip
    rows = np.flatnonzero(joined.label_of_row != NO_LABEL)
    order = joined.label_of_row[rows].tolist()
    groups, has_groups = _groups([table.groups[at] for at in order])
    labelled = Labelled(
        heads=table.heads,
        rows=rows,
        labels=table.values[order],
        splits=np.array([table.splits[at] for at in order], dtype=object),
        groups=groups,
        has_groups=has_groups,
        extras={
            name: np.array([column[at] for at in order], dtype=object)
            for name, column in table.extras.items()
        },
        unmatched=[(table.lines[at], joined.keys[at]) for at in joined.unmatched],
        unlabelled=len(joined.unlabelled),
        unmatched_files=[table.files[at] for at in joined.unmatched] if table.files else [],
    )
    if not allow_shared_patients:
        _refuse_shared_patients(labelled, [table.groups[at] for at in order])
    return labelled


def _groups(names: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Numbers patients; an image without a patient counts as a patient of its own."""
    numbers: dict[str, int] = {}
    found = []
    for at, name in enumerate(names):
        found.append(numbers.setdefault(name or f"\0{at}", len(numbers)))
    return np.array(found, np.int64), any(names)


def _refuse_shared_patients(labelled: Labelled, names: Sequence[str]) -> None:
    first: dict[int, tuple[str, str]] = {}
    shared: dict[int, str] = {}
    for group, split, name in zip(
        labelled.groups.tolist(), labelled.splits.tolist(), names, strict=True
    ):
        _, other = first.setdefault(group, (name, split))
        if other != split and group not in shared:
            shared[group] = f"{name} ({other} and {split})"
    if shared:
        some = ", ".join(list(shared.values())[:_SHOWN])
        raise UsageError(
            f"{len(shared)} patients have images in two splits, such as {some}: a head would be "
            "tested on patients that it was trained on; pass --allow_shared_patients to go on"
        )


def check_splits(labelled: Labelled, wanted: Sequence[str]) -> None:
    """Refuses splits without a label.

    Raises:
        UsageError: a split is empty; the message lists the splits that exist.
    """
    there = Counter(labelled.splits.tolist())
    for split in wanted:
        if not there[split]:
            names = ", ".join(f"{name!r} ({count})" for name, count in sorted(there.items()))
            raise UsageError(f"no labelled image is in the split {split!r}; there are {names}")
        if not len(labelled.of_split(split)):
            raise UsageError(
                f"the {there[split]} images of the split {split!r} have no label of "
                f"{', '.join(labelled.heads)}: all are blank"
            )


def check_both_classes(labelled: Labelled, split: str) -> None:
    """Refuses a split in which a head has labels of one class only.

    Raises:
        UsageError: nothing can be learned, or chosen, from it.
    """
    labels = labelled.labels[labelled.of_split(split)]
    for column, head in enumerate(labelled.heads):
        positives, negatives = (
            int((labels[:, column] == 1).sum()),
            int((labels[:, column] == 0).sum()),
        )
        if not positives or not negatives:
            raise UsageError(
                f"the split {split!r} has {positives} positive and {negatives} negative images of "
                f"{head}: both classes are needed"
            )


def describe(labelled: Labelled, splits: Sequence[str]) -> list[str]:
    """Returns lines about what was joined and what was not."""
    lines = []
    for split in splits:
        labels = labelled.labels[labelled.of_split(split)]
        heads = ", ".join(
            f"{head} {int((labels[:, column] == 1).sum())}+ {int((labels[:, column] == 0).sum())}-"
            for column, head in enumerate(labelled.heads)
        )
        lines.append(f"{split}: {len(labels)} images; {heads}")
    if labelled.unmatched:
        some = ", ".join(key for _, key in labelled.unmatched[:_SHOWN])
        lines.append(
            f"warning: labels of images that have no embedding: {len(labelled.unmatched)}, such as "
            f"{some}"
        )
    if labelled.unlabelled:
        lines.append(f"embeddings without a label: {labelled.unlabelled}")
    others = Counter(labelled.splits[~np.isin(labelled.splits, list(splits))].tolist())
    for split, count in sorted(others.items()):
        lines.append(f"not used: {count} labelled images in the split {split!r}")
    if not labelled.has_groups:
        lines.append(
            "no patient column (--group_column): every image counts as a patient of its own"
        )
    return lines
