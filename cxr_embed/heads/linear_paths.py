"""The linear part of a head: logistic regressions of several scalings and penalties, averaged.

Each solution is calibrated on the tune split and weighs as much as the tune split's likelihood then
is (Akaike weights): few images there do not tell which solution is best, and the mean errs less
than a choice by chance; many leave the weight to one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cxr_embed.heads import metrics
from cxr_embed.heads.calibration import Calibration, akaike_weights, calibrate
from cxr_embed.heads.linear import COARSE, Line, rotated, scaled, solve
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import LIMIT, Standardisation

PENALTIES = tuple(10.0**power for power in range(-3, 5))

_PENALTIES_WITHOUT_GAIN = 3
_TRIAL_IMAGES = 8192
# Of normally distributed floats, less than one in a million is beyond the limit.
_FEW_BEYOND = 1e-5


class Tried(NamedTuple):
    """One strength of the penalty, and the metrics that it gave; losses are after calibration."""

    c: float
    loss: float
    tune_loss: float
    tune_auroc: float


class Probe(NamedTuple):
    """The linear part of a head.

    Attributes:
        line: over embeddings in units of their deviations: the mean of all that were tried, by
            their weights; on the scale of the best, not calibrated.
        best: the strength of the penalty that has the largest weight.
        tried: all that were tried.
    """

    line: Line
    best: Tried
    tried: list[Tried]


class Path(NamedTuple):
    """All strengths of the penalty for one head and one scaling.

    Attributes:
        line: the mean of all that were tried, by their weights, each calibrated.
        best: the strength with the lowest loss.
        tried: all that were tried.
        likelihood: logarithm of the sum of the tune split's likelihoods.
        tune_logits: (n,), of `line`.
        plain_tune_logits: (n,), of the best, not calibrated.
    """

    line: Line
    best: Tried
    tried: list[Tried]
    likelihood: float
    tune_logits: np.ndarray
    plain_tune_logits: np.ndarray


def fit_heads(
    embeddings: MappedEmbeddings,
    train: tuple[np.ndarray, np.ndarray],
    tune: tuple[np.ndarray, np.ndarray],
    scalings: Sequence[Standardisation],
    class_weights: str,
) -> tuple[Standardisation, list[Probe]]:
    """Solves each head for several scalings and strengths of the penalty; averages the solutions.

    Strengths are tried from strong to weak, until three in a row bring nothing.

    Args:
        embeddings: the embeddings.
        train: rows (n,) and labels (n, heads) of the training split; NaN is left out.
        tune: likewise of the tune split.
        scalings: of the embeddings; for large sets, which one is best is decided on a part.
        class_weights: `none` or `balanced`.

    Returns:
        The scaling that is best for the mean of the heads, and each head's linear part.
    """
    rows, labels = train
    part = np.arange(len(rows)) if len(scalings) == 1 else _part_of(labels)
    scalings = _that_differ(embeddings, rows[part], scalings)
    paths = [
        _fit_paths(embeddings, (rows[part], labels[part]), tune, scaling, class_weights)
        for scaling in scalings
    ]
    best = int(np.argmin([sum(path.best.tune_loss for path in of_one) for of_one in paths]))
    chosen = scalings[best]
    if len(part) < len(rows):
        scalings, paths = [chosen], [_fit_paths(embeddings, train, tune, chosen, class_weights)]
    return chosen, [_mean(of_head, scalings) for of_head in zip(*paths, strict=True)]


def _that_differ(
    embeddings: MappedEmbeddings, rows: np.ndarray, scalings: Sequence[Standardisation]
) -> list[Standardisation]:
    """Leaves out scalings without limit where next to nothing is beyond the limit."""
    beyond = 0
    for block in embeddings.blocks(rows):
        distance = np.abs(block - scalings[0].mean.astype(np.float32))
        beyond += int((distance > LIMIT * scalings[0].deviation.astype(np.float32)).sum())
    if beyond > _FEW_BEYOND * len(rows) * embeddings.size:
        return list(scalings)
    return [one for one in scalings if np.isfinite(one.limit)] or list(scalings)


def _part_of(labels: np.ndarray) -> np.ndarray:
    """Returns places of at most a few thousand images, some of each class of each head."""
    if len(labels) <= _TRIAL_IMAGES:
        return np.arange(len(labels))
    each = _TRIAL_IMAGES // (2 * labels.shape[1])
    places = [
        np.flatnonzero(column == label)[:each] for column in labels.T for label in (0, 1)
    ]  # fmt: skip
    return np.unique(np.concatenate(places))


def _fit_paths(
    embeddings: MappedEmbeddings,
    train: tuple[np.ndarray, np.ndarray],
    tune: tuple[np.ndarray, np.ndarray],
    scaling: Standardisation,
    class_weights: str,
) -> list[Path]:
    values, tune_values = (scaled(embeddings.take(rows), scaling) for rows, _ in (train, tune))
    values, basis = rotated(values)
    if basis is not None:
        tune_values = tune_values @ basis
    paths = []
    for labels, tune_labels in zip(train[1].T, tune[1].T, strict=True):
        path = _fit_path((values, labels), (tune_values, tune_labels), class_weights)
        if basis is not None:
            path = path._replace(line=path.line._replace(weights=basis @ path.line.weights))
        paths.append(path)
    return paths


def _fit_path(
    train: tuple[np.ndarray, np.ndarray], tune: tuple[np.ndarray, np.ndarray], class_weights: str
) -> Path:
    (values, labels), (tune_values, tune_labels) = train, tune
    known = ~np.isnan(tune_labels)
    tried: list[Tried] = []
    lines: list[Line] = []
    classifier = kept = None
    for c in PENALTIES:
        line, classifier = solve(values, labels, c, class_weights, classifier, tolerance=COARSE)
        logits, tune_logits = line.logits(values), line.logits(tune_values)
        calibration, tune_loss = calibrate(tune_labels, tune_logits, class_weights)
        tried.append(
            Tried(
                c, calibrate(labels, logits, class_weights)[1], tune_loss,
                metrics.auroc(tune_labels[known], tune_logits[known]),
            )
        )  # fmt: skip
        lines.append(_calibrated(line, calibration))
        best = int(np.argmin([one.tune_loss for one in tried]))
        if best == len(tried) - 1:
            kept = copy.deepcopy(classifier)
        if len(tried) - best > _PENALTIES_WITHOUT_GAIN:
            break
    line, _ = solve(values, labels, tried[best].c, class_weights, kept)
    logits = line.logits(tune_values)
    lines[best] = _calibrated(line, calibrate(tune_labels, logits, class_weights)[0])
    losses = int(known.sum()) * np.array([one.tune_loss for one in tried])
    shares = akaike_weights(losses)
    mean = Line(
        np.average([one.weights for one in lines], axis=0, weights=shares),
        float(np.average([one.bias for one in lines], weights=shares)),
    )
    likelihood = float(np.logaddexp.reduce(-losses))
    return Path(mean, tried[best], tried, likelihood, mean.logits(tune_values), logits)


def _mean(paths: Sequence[Path], scalings: Sequence[Standardisation]) -> Probe:
    """Returns a head's linear part: the mean of several scalings' lines, by their weights."""
    shares = akaike_weights(-np.array([path.likelihood for path in paths]))
    wide = any(np.isinf(scaling.limit) for scaling in scalings)
    weights = np.average(
        [
            _over_deviations(path.line.weights, scaling, wide)
            for path, scaling in zip(paths, scalings, strict=True)
        ],
        axis=0, weights=shares,
    )  # fmt: skip
    bias = float(np.average([path.line.bias for path in paths], weights=shares))
    tune = np.average([path.tune_logits for path in paths], axis=0, weights=shares)
    best = paths[int(np.argmin([path.best.tune_loss for path in paths]))]
    # On the best one's own scale, so that a head without calibration is what it says.
    slope = float(best.plain_tune_logits.std() / (tune.std() or 1.0))
    offset = float(best.plain_tune_logits.mean() - slope * tune.mean())
    line = _calibrated(Line(weights, bias), Calibration(slope, offset))
    return Probe(line, best.best, best.tried)


def _over_deviations(weights: np.ndarray, scaling: Standardisation, wide: bool) -> np.ndarray:
    """Returns weights over one scaling as weights over embeddings in units of their deviations."""
    weights = weights * scaling.factor
    if not wide:
        return weights
    nothing = np.zeros(len(weights))
    parts = (nothing, weights) if np.isinf(scaling.limit) else (weights, nothing)
    return np.concatenate(parts)


def _calibrated(line: Line, by: Calibration) -> Line:
    return Line(by.slope * line.weights, by.slope * line.bias + by.offset)
