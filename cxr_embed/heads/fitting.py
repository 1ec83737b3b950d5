"""Training of the network: epochs until the tune split no longer gains."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cxr_embed.heads import metrics
from cxr_embed.heads.batches import ahead
from cxr_embed.heads.calibration import calibrate
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import (
    NetworkSettings,
    Standardisation,
    build,
    import_keras,
    masked_loss,
    predictor,
    standardisation_of,
)
from cxr_embed.heads.steps import Steps


@dataclass(frozen=True)
class Epoch:
    """The metrics of one epoch; `tune_loss` is the one after calibration."""

    number: int
    loss: float
    tune_loss: float
    tune_auroc: float
    seconds: float
    is_best: bool


@dataclass
class History:
    """All epochs, one of which was kept."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return max((epoch for epoch in self.epochs if epoch.is_best), key=lambda e: e.number)


def mean_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the mean AUROC of the heads that have both classes; NaN where none has."""
    found = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        value = metrics.auroc(labels[known, column], scores[known, column])
        if not np.isnan(value):
            found.append(value)
    return float(np.mean(found)) if found else float("nan")


def mean_calibrated_loss(labels: np.ndarray, logits: np.ndarray, class_weights: str) -> float:
    """Returns the mean over the heads of the loss after calibration."""
    losses = [
        calibrate(column, scores, class_weights)[1]
        for column, scores in zip(labels.T, logits.T, strict=True)
    ]
    return float(np.mean(losses))


def fit(
    embeddings: MappedEmbeddings,
    train: tuple[np.ndarray, np.ndarray],
    tune: tuple[np.ndarray, np.ndarray],
    settings: NetworkSettings,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    *,
    standardisation: Standardisation | None = None,
    wide: bool = False,
) -> tuple[Any, History]:
    """Trains a network and keeps the epoch whose loss on the tune split is lowest.

    That loss is the one after calibration (see `calibration`), the mean over the heads.

    Args:
        embeddings: the embeddings.
        train: rows (n,) and labels (n, heads) of the training split.
        tune: likewise of the tune split.
        settings: of the training.
        on_epoch: is called after each epoch.
        standardisation: of the embeddings; None computes it from the training split.
        wide: as in `network.build`.

    Returns:
        The Keras model that gives probabilities, its linear part still zero, and its history.
    """
    import_keras().utils.set_random_seed(settings.seed)
    rows, labels = train
    scaling = standardisation or standardisation_of(embeddings, rows)
    model, alone = build(
        embeddings.size, labels.shape[1], settings.hidden_layer_sizes, scaling, settings.dropout,
        wide=wide,
    )  # fmt: skip
    steps = Steps(alone, settings.learning_rate, masked_loss(labels, settings.class_weights))
    predict = predictor(alone, embeddings, scaling)
    rng = np.random.default_rng(settings.seed)
    size = settings.images_per_step(len(rows))

    fill = partial(scaling.take, embeddings.values)
    history, best = History(), float("inf")
    kept = alone.get_weights()
    for number in range(1, settings.num_epochs + 1):
        started = time.perf_counter()
        # The images that do not fill a last batch are left out of an epoch: batch norm over a few
        # images is noise.
        orders = rng.permutation(len(rows))[: len(rows) // size * size].reshape(-1, size)
        batches = ahead(fill, list(rows[orders]), embeddings.size)
        losses = [
            steps(values, labels[order]) for order, values in zip(orders, batches, strict=True)
        ]
        logits = predict(tune[0])
        tune_loss = mean_calibrated_loss(tune[1], logits, settings.class_weights)
        is_best = tune_loss < best
        if is_best:
            best, kept = tune_loss, alone.get_weights()
        history.epochs.append(
            Epoch(
                number, float(np.mean(losses)), tune_loss, mean_auroc(tune[1], logits),
                time.perf_counter() - started, is_best,
            )
        )  # fmt: skip
        on_epoch(history.epochs[-1])
        if number - history.best.number >= settings.patience:
            break
    alone.set_weights(kept)
    embeddings.release()
    return model, history
