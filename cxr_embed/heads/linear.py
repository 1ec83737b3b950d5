"""The linear probe: logistic regression, a convex problem, which is solved and not iterated over.

Embeddings are standardised and divided by the square root of their size, so that one strength of
the penalty means the same for embeddings of any size. A larger `C` is a weaker penalty.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import metrics
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import Standardisation

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
    """One strength of the penalty, and what it came to on the tune split."""

    c: float
    tune_auroc: float
    loss: float


def scaled(values: np.ndarray, standardisation: Standardisation) -> np.ndarray:
    """Returns embeddings standardised and divided by the square root of their size, a new array."""
    dtype = np.float64 if 2 * values.nbytes <= _FLOAT64_BYTES else np.float32
    out = values.astype(dtype, copy=dtype == np.float64)
    out -= standardisation.mean.astype(dtype)
    out /= (standardisation.deviation * np.sqrt(values.shape[1])).astype(dtype)
    return out


def solve(
    values: np.ndarray, labels: np.ndarray, c: float, class_weights: str, start: Any = None
) -> tuple[Line, Any]:
    """Solves one logistic regression.

    Args:
        values: (n, d), scaled.
        labels: (n,), 0 or 1, of both classes.
        c: inverse strength of the penalty.
        class_weights: `none` or `balanced`.
        start: what an earlier call returned, to start from.

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
    on_try: Callable[[Tried], None] = lambda _: None,
) -> tuple[Line, list[Tried]]:
    """Solves one head for every strength of the penalty and keeps the best on the tune split.

    Args:
        embeddings: the embeddings.
        train: rows (n,) and labels (n,) of the training split; NaN is left out.
        tune: likewise of the tune split.
        standardisation: of the embeddings.
        class_weights: `none` or `balanced`.
        on_try: is told of each.

    Returns:
        The best solution, and all that were tried. Of equals the stronger penalty wins.
    """
    (values, labels), (tune_values, tune_labels) = (
        _known(embeddings, rows, wanted, standardisation) for rows, wanted in (train, tune)
    )
    best: tuple[float, Line] | None = None
    tried: list[Tried] = []
    classifier = None
    for c in PENALTIES:
        line, classifier = solve(values, labels, c, class_weights, classifier)
        found = metrics.auroc(tune_labels, tune_values @ line.weights)
        logits = values @ line.weights + line.bias
        loss = float(np.mean(np.logaddexp(0, logits) - labels * logits))
        tried.append(Tried(c, found, loss))
        on_try(tried[-1])
        if best is None or found > best[0]:
            best = (found, line)
    assert best is not None
    return best[1], tried


def _known(
    embeddings: MappedEmbeddings, rows: np.ndarray, labels: np.ndarray, by: Standardisation
) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(labels)
    return scaled(embeddings.take(rows[known]), by), labels[known]


def as_keras(lines: list[Line], standardisation: Standardisation) -> Any:
    """Returns the Keras model that gives the same probabilities, (n, heads)."""
    from cxr_embed.heads.network import build

    size = len(lines[0].weights)
    model, _ = build(size, len(lines), (), standardisation)
    kernel = np.stack([line.weights for line in lines], axis=1) / np.sqrt(size)
    model.get_layer("logits").set_weights([kernel, np.array([line.bias for line in lines])])
    return model
