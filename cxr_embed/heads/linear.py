"""The linear probe: scikit-learn's logistic regression, solved to convergence.

Embeddings are standardised and divided by the square root of their size, so that one strength of
the penalty means the same for embeddings of any size. A larger `C` is a weaker penalty.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cxr_embed.heads.calibration import import_sklearn_linear
from cxr_embed.heads.network import Standardisation, weights_of

DEFAULT_C = 1.0

_MAX_ITERATIONS = 1000
# A path of solutions is compared at the first tolerance; the one that is kept is solved further.
COARSE, FINE = 1e-4, 1e-6
_ROWS_AT_A_TIME = 4096
# Above it float64 would double gigabytes for digits that no AUROC shows.
_FLOAT64_BYTES = 1 << 30
_JITTERS = (1e-9, 1e-7, 1e-5)


class Line(NamedTuple):
    """A head's weights over scaled embeddings.

    Attributes:
        weights: float64 (d,); or (2 d,), the second half over scaled embeddings without limit.
        bias: float.
    """

    weights: np.ndarray
    bias: float

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Returns float64 (n,) of scaled embeddings (n, d).

        A part at a time: for a product with float64, NumPy copies all of a float32 matrix.
        """
        starts = range(0, len(values) or 1, _ROWS_AT_A_TIME)
        parts = [values[start : start + _ROWS_AT_A_TIME] @ self.weights for start in starts]
        return np.concatenate(parts) + self.bias


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
    tolerance: float = FINE,
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


def rotated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
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
    kernel = np.stack([line.weights for line in lines], axis=1) / np.sqrt(model.input_shape[-1])
    model.get_layer("linear").set_weights([kernel, np.array([line.bias for line in lines])])
