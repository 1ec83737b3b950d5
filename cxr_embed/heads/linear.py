"""The linear probe: scikit-learn's logistic regression, solved to convergence.

Embeddings are standardised and divided by the square root of their size, so that one strength of
the penalty means the same for embeddings of any size. A larger `C` is a weaker penalty.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cxr_embed.heads import metrics
from cxr_embed.heads.calibration import calibrate, import_sklearn_linear
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import Standardisation, weights_of

PENALTIES = tuple(10.0**power for power in range(-3, 5))
DEFAULT_C = 1.0

_MAX_ITERATIONS = 1000
_PENALTIES_WITHOUT_GAIN = 3
# A path of solutions is compared at the first tolerance; the one that is kept is solved further.
_COARSE, _FINE = 1e-4, 1e-6
_TRIAL_IMAGES = 8192
_ROWS_AT_A_TIME = 4096
# Above it float64 would double gigabytes for digits that no AUROC shows.
_FLOAT64_BYTES = 1 << 30
_JITTERS = (1e-9, 1e-7, 1e-5)


class Line(NamedTuple):
    """A head's weights over plain scaled embeddings.

    Attributes:
        weights: float64 (d,).
        bias: float.
    """

    weights: np.ndarray
    bias: float


class Tried(NamedTuple):
    """One strength of the penalty, and the metrics that it gave; losses are after calibration."""

    c: float
    loss: float
    tune_loss: float
    tune_auroc: float


class Probe(NamedTuple):
    """The linear part of a head.

    Attributes:
        line: over scaled embeddings, not calibrated.
        best: the strength of the penalty that was chosen.
        tried: all that were tried.
    """

    line: Line
    best: Tried
    tried: list[Tried]


def scaled(values: np.ndarray, standardisation: Standardisation) -> np.ndarray:
    """Returns embeddings scaled, and divided by the square root of their size.

    Large ones are changed in place, so `values` must be the caller's own.
    """
    root = np.sqrt(values.shape[1])
    if 2 * values.nbytes <= _FLOAT64_BYTES:
        exact: np.ndarray = standardisation.apply(values.astype(np.float64)) / root
        return exact
    for start in range(0, len(values), _ROWS_AT_A_TIME):
        part = standardisation.apply(values[start : start + _ROWS_AT_A_TIME])
        values[start : start + _ROWS_AT_A_TIME] = part / np.float32(root)
    return values


def solve(
    values: np.ndarray,
    labels: np.ndarray,
    c: float,
    class_weights: str,
    start: Any = None,
    *,
    tolerance: float = _FINE,
) -> tuple[Line, Any]:
    """Solves one logistic regression.

    Args:
        values: (n, d), scaled.
        labels: (n,), 0 or 1, of both classes; NaN is left out.
        c: inverse strength of the penalty.
        class_weights: `none` or `balanced`.
        start: the classifier that an earlier call returned, to start from.
        tolerance: largest element of the gradient of the mean loss.

    Returns:
        The solution, and scikit-learn's object.
    """
    classifier = start or import_sklearn_linear().LogisticRegression(
        max_iter=_MAX_ITERATIONS, warm_start=True
    )
    classifier.tol = tolerance
    known = ~np.isnan(labels)
    wanted = np.where(known, labels, 0).astype(np.float64)
    positive, negative = weights_of(labels[:, None], class_weights)
    weights = np.where(wanted == 1, positive, negative) * known  # no copy without the unknown ones
    classifier.C = c
    with warnings.catch_warnings():
        # float32 may reach its last digit before the tolerance; the solution is as good.
        warnings.simplefilter("ignore")
        classifier.fit(values, wanted, weights)
    coefficients = np.asarray(classifier.coef_[0], np.float64).copy()
    return Line(coefficients, float(classifier.intercept_[0])), classifier


def fit_heads(
    embeddings: MappedEmbeddings,
    train: tuple[np.ndarray, np.ndarray],
    tune: tuple[np.ndarray, np.ndarray],
    scalings: Sequence[Standardisation],
    class_weights: str,
) -> tuple[Standardisation, list[Probe]]:
    """Solves each head for several strengths of the penalty and keeps the best on the tune split.

    The best is the one with the lowest loss after calibration (see `calibration`); of equals, the
    one with the strongest penalty. Strengths are tried from strong to weak, until three in a row
    bring nothing.

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
    found = [
        _fit_paths(embeddings, (rows[part], labels[part]), tune, scaling, class_weights)
        for scaling in scalings
    ]
    best = int(np.argmin([sum(probe.best.tune_loss for probe in probes) for probes in found]))
    if len(part) == len(rows):
        return scalings[best], found[best]
    return scalings[best], _fit_paths(embeddings, train, tune, scalings[best], class_weights)


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
) -> list[Probe]:
    values, tune_values = (scaled(embeddings.take(rows), scaling) for rows, _ in (train, tune))
    values, basis = _rotated(values)
    if basis is not None:
        tune_values = tune_values @ basis
    probes = []
    for labels, tune_labels in zip(train[1].T, tune[1].T, strict=True):
        probe = _fit_path((values, labels), (tune_values, tune_labels), class_weights)
        if basis is not None:
            line = Line(basis @ probe.line.weights, probe.line.bias)
            probe = probe._replace(line=line)
        probes.append(probe)
    return probes


def _fit_path(
    train: tuple[np.ndarray, np.ndarray], tune: tuple[np.ndarray, np.ndarray], class_weights: str
) -> Probe:
    (values, labels), (tune_values, tune_labels) = train, tune
    known = ~np.isnan(tune_labels)
    tried: list[Tried] = []
    classifier = kept = None
    for c in PENALTIES:
        line, classifier = solve(values, labels, c, class_weights, classifier, tolerance=_COARSE)
        logits, tune_logits = (x @ line.weights + line.bias for x in (values, tune_values))
        tried.append(
            Tried(
                c,
                calibrate(labels, logits, class_weights)[1],
                calibrate(tune_labels, tune_logits, class_weights)[1],
                metrics.auroc(tune_labels[known], tune_logits[known]),
            )
        )
        best = int(np.argmin([one.tune_loss for one in tried]))
        if best == len(tried) - 1:
            kept = copy.deepcopy(classifier)
        if len(tried) - best > _PENALTIES_WITHOUT_GAIN:
            break
    line, _ = solve(values, labels, tried[best].c, class_weights, kept)
    return Probe(line, tried[best], tried)


def _rotated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns fewer numbers an image where there are fewer images than floats, and the way back.

    A penalised solution lies in the space that the images span, so that nothing is lost:
    `basis @ weights` are the weights over the floats.
    """
    rows, size = values.shape
    if rows >= size:
        return values, None
    from scipy.linalg import solve_triangular

    products = (values @ values.T).astype(np.float64)
    mean = max(np.trace(products) / rows, 1e-30)
    for share in _JITTERS:
        # What this adds to the diagonal changes a solution by less than the solver's tolerance.
        products[np.diag_indices(rows)] += share * mean
        with contextlib.suppress(np.linalg.LinAlgError):
            root = np.linalg.cholesky(products).astype(values.dtype)
            return root, solve_triangular(root, values, lower=True).T
    return values, None


def set_linear(model: Any, lines: Sequence[Line]) -> None:
    """Writes lines over scaled embeddings into a Keras model's linear part."""
    kernel = np.stack([line.weights for line in lines], axis=1) / np.sqrt(len(lines[0].weights))
    model.get_layer("linear").set_weights([kernel, np.array([line.bias for line in lines])])
