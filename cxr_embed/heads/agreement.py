"""Whether images with the same finding have similar embeddings: neighbours against chance.

For each label, the images that have it are looked up: how many of their k nearest images from other
patients have it, too? Chance is the share of images with the finding among those of other patients.
The claim is that of Sellergren et al., "Simplified Transfer Learning for Chest Radiography Models
Using Less Data", Radiology 2022. scikit-learn's neighbours cannot leave out the own patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_embed.embeddings.neighbours import Groups, nearest
from cxr_embed.heads import intervals
from cxr_embed.heads.intervals import UNDEFINED, Estimate

NUM_NEIGHBOURS = 10
FIGURES = ("agreement", "chance", "lift")

# Larger sets are measured on a sample of the images with the finding, against all others.
MOST_QUERIES = 1000
LEAST_PATIENTS = 5


@dataclass(frozen=True)
class Settings:
    """Settings of the comparison.

    Attributes:
        k: neighbours of each image.
        resamples: of the bootstrap.
        seed: of the bootstrap and of samples.
        most_queries: images with the finding that are looked up, at most.
    """

    k: int = NUM_NEIGHBOURS
    resamples: int = 1000
    seed: int = 0
    most_queries: int = MOST_QUERIES


@dataclass(frozen=True)
class Agreement:
    """The neighbours of one label's positive images.

    Attributes:
        head: the label.
        k: neighbours of each image.
        n: images that have a label, positive or negative.
        n_positive: those with the finding.
        patients: patients of the positive ones.
        n_compared: positive images whose neighbours were looked up: all, or a random sample.
        agreement: share of positive images among the neighbours, 0..1.
        chance: share of positive images among all images of other patients, 0..1.
        lift: agreement / chance.
        problem: why there is no figure; empty if there is one.
    """

    head: str
    k: int
    n: int
    n_positive: int
    patients: int
    n_compared: int = 0
    agreement: Estimate = UNDEFINED
    chance: Estimate = UNDEFINED
    lift: Estimate = UNDEFINED
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns all of it for JSON."""
        found: dict[str, Any] = {
            name: getattr(self, name) for name in ("k", "n", "n_positive", "patients", "n_compared")
        }
        found |= {name: getattr(self, name).as_json() for name in FIGURES}
        return found | ({"problem": self.problem} if self.problem else {})


def measure(
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    heads: Sequence[str],
    *,
    settings: Settings,
    log: Callable[[str], None] = lambda _: None,
) -> list[Agreement]:
    """Compares neighbours with chance for each label.

    Images whose label is blank are left out for that label: each image has the k nearest of those
    that have one.

    Args:
        values: float32 of shape (n, d), possibly memory-mapped; read block by block.
        labels: of shape (n, heads): 0, 1, or NaN where there is none.
        groups: int64 of shape (n,), the patient of each image.
        heads: names of the labels.
        settings: of the comparison.
        log: receives one line of progress at a time.
    """
    found = []
    for number, head in enumerate(heads):
        found.append(_measure_one(values, labels[:, number], groups, head, settings))
        if len(values) > settings.most_queries:
            log(f"{head}: neighbours of {found[-1].n_compared} images compared")
    return found


def _measure_one(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray, head: str, settings: Settings
) -> Agreement:
    known = ~np.isnan(labels)
    positive = np.flatnonzero(labels == 1)
    patients = len(np.unique(groups[positive]))
    counts = (head, settings.k, int(known.sum()), len(positive), patients)
    if patients < LEAST_PATIENTS:
        return Agreement(
            *counts, problem=f"too few: {patients} patients have it, {LEAST_PATIENTS} are needed"
        )
    queries = positive
    if len(positive) > settings.most_queries:
        random = np.random.default_rng(settings.seed)
        queries = np.sort(random.choice(positive, settings.most_queries, replace=False))
    others = Groups(np.where(known, groups, -1), groups[queries])
    rows = nearest(values, values[queries], settings.k, groups=others).rows
    agreement, chance, lift = _estimate(labels, groups, queries, rows, settings)
    return Agreement(*counts, len(queries), agreement, chance, lift)


def _estimate(
    labels: np.ndarray,
    groups: np.ndarray,
    queries: np.ndarray,
    rows: np.ndarray,
    settings: Settings,
) -> tuple[Estimate, Estimate, Estimate]:
    """Returns agreement, chance and lift; the bootstrap draws patients, queries and neighbours."""
    known = np.flatnonzero(~np.isnan(labels))
    names, patient_of = np.unique(groups[known], return_inverse=True)
    n_of = np.bincount(patient_of)
    positives_of = np.bincount(patient_of, labels[known])
    asking = np.searchsorted(names, groups[queries])
    found = np.searchsorted(names, groups[rows])
    is_found = rows >= 0
    hits = is_found & (labels[rows] == 1)

    def figures(weights: np.ndarray | None) -> dict[str, float]:
        weights = np.ones(len(names)) if weights is None else weights
        of_query = weights[asking]
        of_pair = of_query[:, None] * np.where(is_found, weights[found % len(names)], 0)
        own = of_query  # a patient's images are all drawn as often as the patient
        n_others = weights @ n_of - own * n_of[asking]
        positive_others = weights @ positives_of - own * positives_of[asking]
        with np.errstate(divide="ignore", invalid="ignore"):
            agreement = np.float64((of_pair * hits).sum()) / of_pair.sum()
            shares = np.where(n_others > 0, positive_others / n_others, 0.0)
            chance = np.float64(of_query @ shares) / of_query.sum()
            lift = agreement / chance
        return {"agreement": float(agreement), "chance": float(chance), "lift": float(lift)}

    patients = len(np.unique(asking))
    drawn = intervals.bootstrap(
        figures, np.arange(len(names)), settings.resamples, settings.seed,
        {"agreement": patients, "chance": patients},
    )  # fmt: skip
    agreement, chance, lift = (drawn[name] for name in FIGURES)
    if agreement.value == 0 and chance.value > 0:  # so it is in each resample
        lift = Estimate(*(end / chance.value for end in agreement))
    return agreement, chance, lift


def lines(found: Sequence[Agreement]) -> list[str]:
    """Returns the figures as lines of text."""
    shown = []
    for one in found:
        shown.append(
            f"{one.head}: {one.n_positive} positive of {one.n} images, {one.patients} patients"
        )
        if one.problem:
            shown.append(f"  neighbours                   not measured: {one.problem}")
            continue
        if one.n_compared < one.n_positive:
            shown.append(f"  compared                     {one.n_compared} images, by chance")
        for words, estimate, form in (
            (f"{one.k} nearest of others", one.agreement, ".3f"),
            ("chance", one.chance, ".3f"),
            ("times chance", one.lift, ".2f"),
        ):
            ends = f" ({estimate.low:{form}} to {estimate.high:{form}})"
            ends = ends if np.isfinite(estimate.low) else ""
            shown.append(f"  {words:<28} {estimate.value:{form}}{ends}")
    return shown
