"""What embeddings hold of each label: a linear probe, and neighbours against chance."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.heads import agreement, probe
from cxr_embed.heads.found_labels import find_labels, find_patients
from cxr_embed.report.label_columns import LabelColumns

# A label takes some seconds.
MOST_LABELS = 20
_RESAMPLES = 500
_MOST_QUERIES = 500


@dataclass(frozen=True)
class LabelFigures:
    """Figures of all labels of a table.

    Attributes:
        probes: the linear probe of each label.
        neighbours: the neighbours of each label's positive images, in the same order.
        left_out: names of labels that were not measured, because there are too many.
        has_patients: whether patients are known; if not, each image counts as one.
        problem: why there are no probes; empty if there are.
    """

    probes: list[probe.Probed] = field(default_factory=list)
    neighbours: list[agreement.Agreement] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    has_patients: bool = False
    problem: str = ""

    @property
    def most_images(self) -> int:
        """The largest number of images that a probe used."""
        return max((one.n_used for one in self.probes), default=0)

    @property
    def is_sample(self) -> bool:
        """Whether a probe or a comparison used a part of the images with a label."""
        return any(0 < one.n_used < one.n for one in self.probes)

    @property
    def compared(self) -> list[agreement.Agreement]:
        """Labels whose positive images are too many to be looked up."""
        return [one for one in self.neighbours if 0 < one.n_compared < one.n_positive]


def measure(
    embeddings: Embeddings,
    labels: LabelColumns,
    seed: int,
    watch: Callable[[str, int, Iterator[Any]], Iterator[Any]],
) -> LabelFigures:
    """Measures the labels of a table.

    Args:
        embeddings: the embeddings.
        labels: joined with them.
        seed: of samples, folds and the bootstrap.
        watch: gets (description, number of items, items), displays progress, yields the items.
    """
    found = find_labels(labels.columns)
    names = list(found)[:MOST_LABELS]
    if not names:
        return LabelFigures()
    missing = [name for name in ("sklearn", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        return LabelFigures(problem="scikit-learn is not installed: pip install 'cxr-embed[train]'")
    groups, has_patients = find_patients(labels.columns, embeddings.image_ids)
    settings = agreement.Settings(resamples=_RESAMPLES, seed=seed, most_queries=_MOST_QUERIES)
    probes: list[probe.Probed] = []
    neighbours: list[agreement.Agreement] = []

    def each() -> Iterator[str]:
        for name in names:
            values, label = embeddings.values, found[name]
            probes.append(probe.probe(values, label, groups, name, resamples=_RESAMPLES, seed=seed))
            neighbours.extend(
                agreement.measure(values, label[:, np.newaxis], groups, [name], settings=settings)
            )
            yield name

    list(watch("measuring labels", len(names), each()))
    return LabelFigures(probes, neighbours, list(found)[MOST_LABELS:], has_patients)
