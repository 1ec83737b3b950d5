"""The linear probe: scikit-learn's logistic regression, solved to convergence.

Embeddings are standardised and divided by the square root of their size, so that one strength of
the penalty means the same for embeddings of any size. A larger `C` is a weaker penalty.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import metrics
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import Standardisation, build, mean_loss, weights_of

PENALTIES = tuple(10.0**power for power in range(-3, 5))
DEFAULT_C = 1.0

_MAX_ITERATIONS = 2000
# Above it float64 would double gigabytes for digits that no AUROC shows.
_FLOAT64_BYTES = 1 << 30


class Line(NamedTuple):
    """A head's weights over plain scaled embeddings.

    Attributes:
        weights: float64 (d,).
        bias: float.
    """

    weights: np.ndarray
    bias: float


class Tried(NamedTuple):
    """One strength of the penalty, and the metrics that it gave."""

    c: float
    loss: float
    tune_loss: float
    tune_auroc: float


def scaled(values: np.ndarray, standardisation: Standardisation) -> np.ndarray:
    """Returns embeddings standardised and divided by the square root of their size.

    Large ones are changed in place, so `values` must be the caller's own.
    """
    divisor = standardisation.deviation * np.sqrt(values.shape[1])
    if 2 * values.nbytes <= _FLOAT64_BYTES:
        exact: np.ndarray = (values - standardisation.mean) / divisor
        return exact
    values -= standardisation.mean.astype(np.float32)
    values /= divisor.astype(np.float32)
    return values


def solve(
    values: np.ndarray, labels: np.ndarray, c: float, class_weights: str, start: Any = None
) -> tuple[Line, Any]:
    """Solves one logistic regression.

    Args:
        values: (n, d), scaled.
        labels: (n,), 0 or 1, of both classes.
        c: inverse strength of the penalty.
        class_weights: `none` or `balanced`.
        start: the classifier that an earlier call returned, to start from.

    Returns:
        The solution, and scikit-learn's object.
    """
    classifier = start or import_sklearn_linear().LogisticRegression(
        tol=1e-6, max_iter=_MAX_ITERATIONS, warm_start=True,
        class_weight="balanced" if class_weights == "balanced" else None,
    )  # fmt: skip
    classifier.C = c
    with warnings.catch_warnings():
        # float32 may reach its last digit before the tolerance; the solution is as good.
        warnings.simplefilter("ignore")
        classifier.fit(values, labels)
    weights = np.asarray(classifier.coef_[0], np.float64).copy()
    return Line(weights, float(classifier.intercept_[0])), classifier


def import_sklearn_linear() -> Any:
    """Imports scikit-learn's linear models.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import sklearn.linear_model
    except ImportError as error:
        raise UsageError("scikit-learn is not installed: pip install 'cxr-embed[train]'") from error
    return sklearn.linear_model


def fit_head(
    embeddings: MappedEmbeddings,
    train: tuple[np.ndarray, np.ndarray],
    tune: tuple[np.ndarray, np.ndarray],
    standardisation: Standardisation,
    class_weights: str,
) -> tuple[Line, Tried, list[Tried]]:
    """Solves one head for every strength of the penalty and keeps the best on the tune split.

    Args:
        embeddings: the embeddings.
        train: rows (n,) and labels (n,) of the training split; NaN is left out.
        tune: likewise of the tune split.
        standardisation: of the embeddings.
        class_weights: `none` or `balanced`.

    Returns:
        The solution with the best AUROC on the tune split, of equals the one with the strongest
        penalty; its metrics; and those of all penalties. The penalty with the best AUROC may
        shrink all logits, so that they are scaled and shifted to fit the tune split (Platt's
        scaling), which changes no rank.
    """
    (values, labels), (tune_values, tune_labels) = (
        _known(embeddings, rows, wanted, standardisation) for rows, wanted in (train, tune)
    )
    lines: list[Line] = []
    tried: list[Tried] = []
    classifier = None
    for c in PENALTIES:
        line, classifier = solve(values, labels, c, class_weights, classifier)
        logits, tune_logits = (x @ line.weights + line.bias for x in (values, tune_values))
        tried.append(
            Tried(
                c,
                mean_loss(labels[:, None], logits[:, None], class_weights),
                mean_loss(tune_labels[:, None], tune_logits[:, None], class_weights),
                metrics.auroc(tune_labels, tune_logits),
            )
        )
        lines.append(line)
    best = int(np.argmax([one.tune_auroc for one in tried]))
    calibrated = _calibrated(lines[best], tune_values, tune_labels, class_weights)
    return calibrated, tried[best], tried


def _calibrated(line: Line, values: np.ndarray, labels: np.ndarray, class_weights: str) -> Line:
    positive, negative = weights_of(labels[:, None], class_weights)
    weights = np.where(labels == 1, positive, negative)
    logits = (values @ line.weights + line.bias).astype(np.float64)
    intercept, slope = metrics.logistic_line(labels, logits, weights)
    if not slope > 0:  # NaN where the tune split is separated, or too small for a line
        return line
    return Line(line.weights * slope, line.bias * slope + intercept)


def _known(
    embeddings: MappedEmbeddings, rows: np.ndarray, labels: np.ndarray, by: Standardisation
) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(labels)
    return scaled(embeddings.take(rows[known]), by), labels[known]


def as_keras(lines: list[Line], standardisation: Standardisation) -> Any:
    """Returns the Keras model that gives the same probabilities, (n, heads)."""
    size = len(lines[0].weights)
    model, _ = build(size, len(lines), (), standardisation)
    kernel = np.stack([line.weights for line in lines], axis=1) / np.sqrt(size)
    model.get_layer("logits").set_weights([kernel, np.array([line.bias for line in lines])])
    return model
