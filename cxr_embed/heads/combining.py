"""A head's two parts, linear and network, combined by their weights in the sum of the logits.

Embeddings of a large network are often separable by a plane, and few labels let no network find
more; elsewhere a network finds what no plane can. Which one holds is measured on the tune split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cxr_embed.heads.calibration import Calibration, akaike_weights, calibrate
from cxr_embed.heads.linear import Line, set_linear
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import import_keras, predictor

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

# How much the likelihood of the tune split must rise for a network that gets all the weight to be
# as likely as none. The epoch that was kept is the best of many on the same split, so that a
# useless network gains a few nats by chance.
_NATS = 8.0


class Mixture(NamedTuple):
    """logit = linear x linear part + network x network part + offset.

    Attributes:
        share: weight of the network, 0 to 1, once both parts have the same spread.
        linear: factor of the linear part.
        network: factor of the network part.
        offset: of the logit.
    """

    share: float
    linear: float
    network: float
    offset: float

    def apply(self, linear: np.ndarray, network: np.ndarray) -> np.ndarray:
        """Returns logits, (n,), of the logits of both parts."""
        return self.linear * linear + self.network * network + self.offset

    def calibrated(self, by: Calibration) -> Mixture:
        """Returns the mixture with a calibration of its logits inside."""
        offset = by.slope * self.offset + by.offset
        return Mixture(self.share, by.slope * self.linear, by.slope * self.network, offset)


def choose(
    linear: np.ndarray, network: np.ndarray, labels: np.ndarray, class_weights: str
) -> Mixture:
    """Chooses how much weight the network gets, by the loss after calibration.

    The share is the mean of several, each weighted by its likelihood on the tune split.

    Args:
        linear: (n,), logits of the linear part on the tune split.
        network: (n,), likewise of the network.
        labels: (n,), 0, 1, or NaN.
        class_weights: `none` or `balanced`.
    """
    n = int((~np.isnan(labels)).sum())
    losses = []
    for share in SHARES:
        logits = mix(linear, network, share).apply(linear, network)
        losses.append(n * calibrate(labels, logits, class_weights)[1] + _NATS * share)
    return mix(linear, network, float(np.dot(akaike_weights(np.array(losses)), SHARES)))


def mix(linear: np.ndarray, network: np.ndarray, share: float) -> Mixture:
    """Returns a mixture of two parts that are first given the same spread, over some images."""
    middles = (float(linear.mean()), float(network.mean()))
    spreads = (float(linear.std()) or 1.0, float(network.std()) or 1.0)
    weights = (1 - share, share)
    spread = float(np.dot(weights, spreads))
    factors = (spread * weights[0] / spreads[0], spread * weights[1] / spreads[1])
    offset = float(np.dot(weights, middles) - np.dot(factors, middles))
    return Mixture(share, factors[0], factors[1], offset)


class Combined(NamedTuple):
    """The mixtures of all heads, and their calibrations, which the mixtures do not hold."""

    mixtures: list[Mixture]
    calibrations: list[Calibration]


def combine(
    model: Any,
    embeddings: MappedEmbeddings,
    tune: tuple[np.ndarray, np.ndarray],
    lines: Sequence[Line],
    class_weights: str,
    *,
    calibrated: bool,
) -> Combined:
    """Combines both parts, calibrates their sum, and writes it into the Keras model.

    Args:
        model: with the layer `linear`, still zero, and the trained layer `network`, if it has
            hidden layers.
        embeddings: the embeddings.
        tune: rows (n,) and labels (n, heads) of the tune split.
        lines: the linear part of each head.
        class_weights: `none` or `balanced`.
        calibrated: whether to calibrate.

    Returns:
        What was chosen. `calibrations` is empty where none was asked for.
    """
    rows, labels = tune
    has_network = any(layer.name == "network" for layer in model.layers)
    # The sum of both parts while the linear part is zero.
    network = _outputs(model, "logits", embeddings, rows) if has_network else None
    set_linear(model, lines)
    linear = _outputs(model, "linear", embeddings, rows)
    network = linear if network is None else network
    found = Combined([], [])
    for column in range(labels.shape[1]):
        parts = linear[:, column], network[:, column]
        mixture = Mixture(0.0, 1.0, 0.0, 0.0)
        if has_network:
            mixture = choose(*parts, labels[:, column], class_weights)
        found.mixtures.append(mixture)
        if calibrated:
            calibration, _ = calibrate(labels[:, column], mixture.apply(*parts), class_weights)
            found.calibrations.append(calibration)
    inside = found.mixtures
    if calibrated:
        pairs = zip(found.mixtures, found.calibrations, strict=True)
        inside = [mixture.calibrated(by) for mixture, by in pairs]
    _write(model, lines, inside)
    return found


def _outputs(model: Any, layer: str, embeddings: MappedEmbeddings, rows: np.ndarray) -> np.ndarray:
    part = import_keras().Model(model.input, model.get_layer(layer).output)
    return predictor(part, embeddings)(rows).astype(np.float64)


def _write(model: Any, lines: Sequence[Line], mixtures: Sequence[Mixture]) -> None:
    """Changes the weights of a Keras model so that its logits are those of the mixtures."""
    scaled = [
        Line(line.weights * mixture.linear, line.bias * mixture.linear + mixture.offset)
        for line, mixture in zip(lines, mixtures, strict=True)
    ]
    set_linear(model, scaled)
    if any(layer.name == "network" for layer in model.layers):
        factors = np.array([mixture.network for mixture in mixtures], np.float32)
        kernel, bias = model.get_layer("network").get_weights()
        model.get_layer("network").set_weights([kernel * factors, bias * factors])
