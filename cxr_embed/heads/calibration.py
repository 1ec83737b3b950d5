"""Calibration: a line through the logits, fitted on the tune split.

The slope is an inverse temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML
2017); the offset corrects a shift (Platt, 1999). The slope is above zero, so that no rank and no
AUROC changes. The loss after calibration also compares classifiers: it depends on their ranks and
not on the scale of their logits.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads.network import mean_loss, weights_of

# Of the slope over standardised logits: a normal prior of standard deviation 2.5, so that a tune
# split of a few images does not make a head certain (Gelman et al., Annals of Applied Statistics
# 2008, propose this scale).
_PRIOR_C = 2.5**2


@dataclass(frozen=True)
class Calibration:
    """calibrated logit = slope x logit + offset; slope is above 0."""

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Returns calibrated logits."""
        return self.slope * logits + self.offset

    def undo(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns what the probabilities were before the calibration, float64 (n,)."""
        clipped = np.clip(np.asarray(probabilities, np.float64), 1e-12, 1 - 1e-12)
        logits = (np.log(clipped / (1 - clipped)) - self.offset) / self.slope
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))


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


def calibrate(
    labels: np.ndarray, logits: np.ndarray, class_weights: str = "none"
) -> tuple[Calibration, float]:
    """Fits a calibration to some images of one head.

    Args:
        labels: (n,), 0, 1, or NaN, which is left out.
        logits: (n,).
        class_weights: `none` or `balanced`.

    Returns:
        The calibration, and the loss after it. Where the logits do not vary, one class is missing,
        or higher logits are not more often positive, the calibration changes nothing, and the loss
        is that of the best constant.
    """
    known = ~np.isnan(labels)
    labels, logits = labels[known].astype(np.float64), logits[known].astype(np.float64)
    if not 0 < labels.sum() < len(labels):
        return Calibration(), 0.0
    positive, negative = weights_of(labels[:, None], class_weights)
    weights = np.where(labels == 1, positive, negative).astype(np.float64)
    share = float(np.average(labels, weights=weights))
    constant = np.full((len(labels), 1), np.log(share / (1 - share)))
    chance = mean_loss(labels[:, None], constant, class_weights)
    middle, spread = logits.mean(), logits.std()
    if not spread > 1e-9 * max(abs(middle), 1.0):
        return Calibration(), chance
    standardised = ((logits - middle) / spread)[:, None]
    classifier = import_sklearn_linear().LogisticRegression(C=_PRIOR_C, solver="newton-cholesky")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Hessian that is nearly singular: solved by lbfgs
        classifier.fit(standardised, labels, weights)
    slope = float(classifier.coef_[0, 0])
    if slope <= 0:
        return Calibration(), chance
    found = classifier.decision_function(standardised)[:, None]
    line = Calibration(slope / spread, float(classifier.intercept_[0]) - slope * middle / spread)
    return line, mean_loss(labels[:, None], found, class_weights)


def akaike_weights(losses: np.ndarray) -> np.ndarray:
    """Returns the weights of models by their likelihood, float64 (n,), with sum 1.

    Akaike, Biometrika 1979; Yao et al., "Using stacking to average Bayesian predictive
    distributions", Bayesian Analysis 2018 (pseudo-BMA).

    Args:
        losses: (n,), negative log-likelihoods of the same images.
    """
    weights = np.exp(losses.min() - losses)
    return np.asarray(weights / weights.sum())
