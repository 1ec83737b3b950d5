"""Trains both parts of a head: a penalised logistic regression, and a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cxr_embed.heads import combining, fitting, linear_paths, network, plots
from cxr_embed.heads.calibration import Calibration
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import NetworkSettings

_LOG_EVERY_SECONDS = 10.0

# Rows of the embeddings, and their labels.
Part = tuple[np.ndarray, np.ndarray]


@dataclass
class TrainedHead:
    """A trained head and the course of its training.

    Attributes:
        model: Keras, embeddings to probabilities.
        curve: loss and AUROC for each epoch, or for each strength of the penalty.
        training: for `head.json`.
        calibrations: of each head, inside the model; none without calibration.
    """

    model: Any
    curve: plots.TrainingCurve
    training: dict[str, Any]
    calibrations: list[Calibration]


def train_head(
    embeddings: MappedEmbeddings,
    heads: tuple[str, ...],
    train: Part,
    tune: Part,
    settings: NetworkSettings,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> TrainedHead:
    """Solves the linear part, trains the network, if there is one, and combines them.

    Args:
        embeddings: the embeddings.
        heads: names of the heads.
        train: rows (n,) and labels (n, heads) of the training split.
        tune: likewise of the tune split, on which all choices are made.
        settings: how to train; no hidden layers make a linear probe.
        log: receives one line of progress at a time.
    """
    own = network.standardisation_of(embeddings, train[0])
    limited = (own, own.in_own_proportions())
    scalings = (*limited, *(one.unlimited() for one in limited))
    scaling, probes = linear_paths.fit_heads(
        embeddings, train, tune, scalings, settings.class_weights
    )
    wide = len(probes[0].line.weights) > embeddings.size
    embeddings.release()
    for head, probe in zip(heads, probes, strict=True):
        log(f"{head}: linear part, C = {probe.best.c:g}, tune AUROC {probe.best.tune_auroc:.4f}")
    training: dict[str, Any] = {
        "kind": "network" if settings.hidden_layer_sizes else "linear probe",
        **asdict(settings),
        "scaling": "deviation" if bool(np.all(scaling.factor == own.factor)) else "own proportions",
        "limit": scaling.limit if np.isfinite(scaling.limit) else None,
        "penalty_c": {
            head: probe.best.c for head, probe in zip(heads, probes, strict=True)
        },
    }  # fmt: skip
    if settings.hidden_layer_sizes:
        model, history = fitting.fit(
            embeddings,
            train,
            tune,
            settings,
            _log_epochs(settings.num_epochs, log),
            standardisation=scaling,
            wide=wide,
        )
        training |= {"epochs": len(history.epochs), "best_epoch": history.best.number,
                     "best_tune_auroc": history.best.tune_auroc,
                     "batch_size": settings.images_per_step(len(train[0]))}  # fmt: skip
        curve = _curve_of_epochs(history, heads)
        best = history.best
        log(f"kept epoch {best.number} of {len(history.epochs)}, tune AUROC {best.tune_auroc:.4f}")
    else:
        model, _ = network.build(embeddings.size, len(heads), (), scaling, wide=wide)
        curve = _curve_of_penalties(probes, heads)
    combined = combining.combine(
        model, embeddings, tune, [probe.line for probe in probes], settings.class_weights,
        calibrated=settings.calibrate,
    )  # fmt: skip
    if settings.hidden_layer_sizes:
        training["network_share"] = {
            head: round(mixture.share, 4)
            for head, mixture in zip(heads, combined.mixtures, strict=True)
        }
        for head, share in training["network_share"].items():
            log(f"{head}: the network has {share:.0%} of the weight, the linear part the rest")
    return TrainedHead(model, curve, training, combined.calibrations)


def _log_epochs(num_epochs: int, log: Callable[[str], None]) -> Callable[[fitting.Epoch], None]:
    last = -_LOG_EVERY_SECONDS

    def on_epoch(epoch: fitting.Epoch) -> None:
        nonlocal last
        now = time.monotonic()
        if epoch.is_best or now - last >= _LOG_EVERY_SECONDS:
            last = now
            star = ", the best so far" if epoch.is_best else ""
            log(
                f"epoch {epoch.number} of {num_epochs}: loss {epoch.loss:.4f}, tune AUROC "
                f"{epoch.tune_auroc:.4f}{star} ({epoch.seconds:.1f} s)"
            )

    return on_epoch


def _curve_of_epochs(history: fitting.History, heads: tuple[str, ...]) -> plots.TrainingCurve:
    epochs = history.epochs
    return plots.TrainingCurve(
        "epoch of the network",
        [epoch.number for epoch in epochs],
        {
            "training": [epoch.loss for epoch in epochs],
            "tune, calibrated": [epoch.tune_loss for epoch in epochs],
        },
        {"mean of heads" if len(heads) > 1 else heads[0]: [epoch.tune_auroc for epoch in epochs]},
        [history.best.number],
    )


def _curve_of_penalties(
    probes: list[linear_paths.Probe], heads: tuple[str, ...]
) -> plots.TrainingCurve:
    longest = max(len(probe.tried) for probe in probes)

    def column(probe: linear_paths.Probe, name: str) -> list[float]:
        values = [float(getattr(one, name)) for one in probe.tried]
        return values + [float("nan")] * (longest - len(values))

    return plots.TrainingCurve(
        "C, inverse strength of the penalty",
        list(linear_paths.PENALTIES[:longest]),
        {
            "training": _means([column(probe, "loss") for probe in probes]),
            "tune": _means([column(probe, "tune_loss") for probe in probes]),
        },
        {
            head: column(probe, "tune_auroc") for head, probe in zip(heads, probes, strict=True)
        },
        [probe.best.c for probe in probes],
        logarithmic=True,
    )  # fmt: skip


def _means(values: list[list[float]]) -> list[float]:
    return [float(value) for value in np.nanmean(values, axis=0)]
