"""A linear probe at a glance: scikit-learn's logistic regression, cross-validated by patient.

It shows what the embeddings hold of each label without training a head. The penalty is fixed, so
that no label is used but those of the training folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_embed.heads import intervals, linear, metrics
from cxr_embed.heads.intervals import UNDEFINED, Estimate

FOLDS = 5
LEAST_PATIENTS = 2 * FOLDS

# A label of a larger set is measured on a sample, half of it positive at most.
MOST_IMAGES = 1000


@dataclass(frozen=True)
class Probed:
    """A label's probe.

    Attributes:
        name: the label.
        n: images that have it, positive or negative.
        n_positive: positive ones.
        n_used: images of the probe: all, or a random sample.
        auroc: mean over folds, with its interval by patient.
        problem: why there is no probe; empty if there is one.
    """

    name: str
    n: int
    n_positive: int
    n_used: int = 0
    auroc: Estimate = UNDEFINED
    problem: str = ""


def probe(
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    name: str,
    *,
    resamples: int = 500,
    seed: int = 0,
    most_images: int = MOST_IMAGES,
) -> Probed:
    """Cross-validates one label.

    Args:
        values: float32 of shape (n, d).
        labels: (n,): 0, 1, or NaN where there is none.
        groups: int64 (n,), the patient of each image; a patient is in one fold.
        name: of the label.
        resamples: of the bootstrap.
        seed: of the sample, the folds and the bootstrap.
        most_images: larger sets are sampled.
    """
    counts = int((~np.isnan(labels)).sum()), int((labels == 1).sum())
    for words, label in (("positive", 1), ("negative", 0)):
        patients = len(np.unique(groups[labels == label]))
        if patients < LEAST_PATIENTS:
            problem = f"too few: {patients} patients are {words}, {LEAST_PATIENTS} are needed"
            return Probed(name, *counts, problem=problem)
    rows = _sample(labels, seed, most_images)
    scores, folds = _out_of_fold(values[rows], labels[rows], groups[rows], seed)
    parts = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    rankings = [metrics.Ranking(labels[rows[part]], scores[part]) for part in parts]

    def figures(weights: np.ndarray | None) -> dict[str, float]:
        of_folds = np.array([
            ranking.auroc(None if weights is None else weights[part])
            for ranking, part in zip(rankings, parts, strict=True)
        ])  # fmt: skip
        known = of_folds[np.isfinite(of_folds)]
        return {"auroc": float(known.mean()) if len(known) else float("nan")}

    deciding = intervals.deciding_patients(labels[rows], groups[rows])
    auroc = intervals.bootstrap(figures, groups[rows], resamples, seed, {"auroc": deciding})
    return Probed(name, *counts, len(rows), auroc["auroc"])


def _sample(labels: np.ndarray, seed: int, most: int) -> np.ndarray:
    """Returns rows with a label: all of them, or a random sample with as many of both classes."""
    random = np.random.default_rng(seed)
    negative, positive = (random.permutation(np.flatnonzero(labels == label)) for label in (0, 1))
    if len(negative) + len(positive) > most:
        fewer = min(len(negative), len(positive), most // 2)
        rest = most - fewer
        limits = (fewer, rest) if len(negative) < len(positive) else (rest, fewer)
        negative, positive = negative[: limits[0]], positive[: limits[1]]
    return np.sort(np.concatenate([negative, positive]))


def _out_of_fold(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each image's score by the probe that has not seen its patient, and its fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    features = _compact(values)
    scores = np.full(len(labels), np.nan)
    folds = np.zeros(len(labels), np.int64)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (train, test) in enumerate(splitter.split(features, labels, groups)):
        line, _ = linear.solve(features[train], labels[train], linear.DEFAULT_C, "none")
        scores[test] = features[test] @ line.weights + line.bias
        folds[test] = fold
    return scores, folds


def _compact(values: np.ndarray) -> np.ndarray:
    """Returns standardised embeddings in as many numbers as there are images, if those are fewer.

    A penalised solution depends on products of rows only, and a Cholesky factor has the same.
    """
    moved = values.astype(np.float64)
    moved -= moved.mean(axis=0)
    deviation = moved.std(axis=0)
    moved /= np.where(deviation > 0, deviation, 1) * np.sqrt(moved.shape[1])
    if len(moved) >= moved.shape[1]:
        return moved
    products = moved @ moved.T
    products[np.diag_indices_from(products)] += 1e-9 * max(products.diagonal().max(), 1e-9)
    factor: np.ndarray = np.linalg.cholesky(products)
    return factor
