"""Training of a head, from embeddings and labels to the content of the output files."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cxr_embed.heads import dataset, metrics, network, operating_points, plots, saved
from cxr_embed.heads.both_parts import TrainedHead, train_head
from cxr_embed.heads.dataset import Labelled
from cxr_embed.heads.intervals import number
from cxr_embed.heads.labels import LabelTable
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import NetworkSettings
from cxr_embed.heads.predictions import Predictions

UNMATCHED_NAME = "unmatched_labels.csv"
BY_SOURCE_NAME = "metrics_by_source.csv"

_PACKAGES = ("cxr-embed", "tensorflow", "keras", "scikit-learn", "numpy")

Log = Callable[[str], None]


@dataclass(frozen=True)
class Splits:
    """Names of the splits, as in the labels."""

    train: str
    tune: str
    test: str | None = None

    def names(self) -> tuple[str, ...]:
        """Returns the names of the splits that are used."""
        return tuple(dict.fromkeys(name for name in (self.train, self.tune, self.test) if name))

    @property
    def judged(self) -> str:
        """The split that the plots show: the test split, or else the tune split."""
        return self.test or self.tune


@dataclass(frozen=True)
class Trained:
    """The result of a training run.

    Attributes:
        files: content of each file, by name, in the order of writing.
        metrics: the content of metrics.json.
    """

    files: dict[str, bytes]
    metrics: dict[str, Any]


def train(
    embeddings: MappedEmbeddings,
    table: LabelTable,
    splits: Splits,
    settings: NetworkSettings,
    *,
    command: str,
    log: Log = lambda _: None,
    allow_shared_patients: bool = False,
) -> Trained:
    """Trains a head and measures it on every split.

    Args:
        embeddings: the embeddings.
        table: their labels.
        splits: names of the splits.
        settings: how to train; no hidden layers make a linear probe.
        command: the command line, which is recorded with the results.
        log: receives one line of progress at a time.
        allow_shared_patients: let a patient's images be in several splits.

    Raises:
        UsageError: the labels do not match; see `dataset.join`.
    """
    labelled = dataset.join(embeddings, table, allow_shared_patients=allow_shared_patients)
    for line in dataset.describe(labelled, splits.names()):
        log(line)
    dataset.check_splits(labelled, splits.names())
    for split in (splits.train, splits.tune):
        dataset.check_both_classes(labelled, split)
    started = time.perf_counter()
    train_part, tune_part = (labelled.part(split) for split in (splits.train, splits.tune))
    head = train_head(embeddings, labelled.heads, train_part, tune_part, settings, log=log)
    head.training["seconds"] = round(time.perf_counter() - started, 1)
    predictions = predict_labelled(head.model, embeddings, labelled, splits.names())
    figures = measure(predictions, splits.names())
    figures["unmatched_labels"] = len(labelled.unmatched)
    figures["unlabelled_embeddings"] = labelled.unlabelled
    description = saved.SavedHead(
        labelled.heads, embeddings.size, embeddings.fingerprint,
        {"splits": asdict(splits), **head.training, "versions": _versions()}, command,
        {
            name: asdict(one)
            for name, one in zip(labelled.heads, head.calibrations, strict=False)
        },
        {
            name: operating_points.tabulate(
                *predictions.head(name, predictions.of(name, splits.tune))
            )
            for name in labelled.heads
        },
    )  # fmt: skip
    files = {
        saved.MODEL_NAME: saved.model_bytes(head.model),
        saved.PREDICTIONS_NAME: predictions.to_csv(),
        UNMATCHED_NAME: _unmatched(labelled),
        **_by_source(predictions, splits.names()),
        **_plots(head, predictions, splits.judged),
        saved.METRICS_NAME: saved.to_json(figures),
        "command.txt": f"{command}\n".encode(),
        saved.HEAD_NAME: description.to_json(),
    }
    return Trained(files, figures)


def predict_labelled(
    model: Any, embeddings: MappedEmbeddings, labelled: Labelled, splits: tuple[str, ...]
) -> Predictions:
    """Returns the model's probabilities for the labelled images of some splits."""
    at = np.flatnonzero(np.isin(labelled.splits, list(splits)))
    rows = labelled.rows[at]
    probabilities = network.predictor(model, embeddings)(rows)
    embeddings.release()
    return Predictions(
        labelled.heads,
        [embeddings.ids[row] for row in rows],
        [embeddings.image_ids[row] for row in rows],
        probabilities.astype(np.float64),
        labelled.labels[at],
        labelled.splits[at],
        labelled.groups[at],
        {name: column[at] for name, column in labelled.extras.items()},
        embeddings.sources_of(rows),
    )


def _unmatched(labelled: Labelled) -> bytes:
    if not labelled.unmatched_files:
        return saved.csv_bytes(("line", "image_id"), labelled.unmatched)
    pairs = zip(labelled.unmatched_files, labelled.unmatched, strict=True)
    return saved.csv_bytes(("file", "line", "image_id"), [(file, *one) for file, one in pairs])


def _by_source(predictions: Predictions, splits: tuple[str, ...]) -> dict[str, bytes]:
    """Returns the figures of each set of embeddings as a table, where there are several sets."""
    if predictions.sources is None:
        return {}
    rows = []
    for source in dict.fromkeys(predictions.sources.tolist()):
        for head in predictions.heads:
            for split in splits:
                at = predictions.of(head, split)
                at = at[predictions.sources[at] == source]
                labels, scores = predictions.head(head, at)
                figures = (number(metrics.auroc(labels, scores)),
                           number(metrics.auprc(labels, scores)))  # fmt: skip
                shown = ["" if figure is None else repr(figure) for figure in figures]
                rows.append((source, head, split, *shown, len(at), int(labels.sum())))
    header = ("source", "head", "split", "auroc", "auprc", "n", "n_positive")
    return {BY_SOURCE_NAME: saved.csv_bytes(header, rows)}


def measure(predictions: Predictions, splits: tuple[str, ...]) -> dict[str, Any]:
    """Returns AUROC, average precision and counts by head and split; null with one class only."""
    found: dict[str, Any] = {}
    for head in predictions.heads:
        found[head] = {}
        for split in splits:
            labels, scores = predictions.head(head, predictions.of(head, split))
            found[head][split] = {
                "auroc": number(metrics.auroc(labels, scores)),
                "auprc": number(metrics.auprc(labels, scores)),
                "n": len(labels),
                "n_positive": int(labels.sum()),
            }
    return found


def _plots(head: TrainedHead, predictions: Predictions, split: str) -> dict[str, bytes]:
    shown = {
        name: predictions.head(name, predictions.of(name, split)) for name in predictions.heads
    }
    title = f"{split} split"
    return {
        "training_curve.png": plots.training_curve(head.curve),
        "roc.png": plots.roc(shown, title),
        "pr.png": plots.precision_recall(shown, title),
        "calibration.png": plots.calibration(shown, title),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
