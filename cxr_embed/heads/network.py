"""The head as a Keras model, and its training.

The saved model takes plain embeddings, float32 (n, d), and gives probabilities, (n, heads):
standardisation is inside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_embed.heads import metrics
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.models.tensorflow_runtime import import_tensorflow

_PREDICT_ROWS = 4096
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class NetworkSettings:
    """How a network is built and trained.

    Attributes:
        hidden_layer_sizes: units of each hidden layer.
        num_epochs: at most so many.
        batch_size: images per step.
        learning_rate: Adam's.
        patience: stop after so many epochs without a better tune AUROC.
        seed: of the weights and of the order of the images.
        class_weights: `none`, or `balanced`: both classes of a head weigh the same.
    """

    hidden_layer_sizes: tuple[int, ...] = (512, 256)
    num_epochs: int = 100
    batch_size: int = 512
    learning_rate: float = 1e-3
    patience: int = 10
    seed: int = 0
    class_weights: str = "none"


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    number: int
    loss: float
    tune_loss: float
    tune_auroc: float
    seconds: float
    is_best: bool


@dataclass
class History:
    """All epochs, and which one was kept."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return max((epoch for epoch in self.epochs if epoch.is_best), key=lambda e: e.number)


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation of each float of an embedding, float64 (d,)."""

    mean: np.ndarray
    deviation: np.ndarray


def import_keras() -> Any:
    """Imports Keras on TensorFlow, whatever the user's Keras is set to."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    tf = import_tensorflow()
    import keras

    if tf.config.list_physical_devices("GPU"):
        # A processor computes the same twice by itself; a GPU has to be told.
        tf.config.experimental.enable_op_determinism()
    return keras


def standardisation_of(embeddings: MappedEmbeddings, rows: np.ndarray) -> Standardisation:
    """Returns mean and deviation over some rows. A float that never varies has deviation 1."""
    total = np.zeros(embeddings.size)
    shift = embeddings.values[rows[0]].astype(np.float64)  # keeps the squares small
    squares = np.zeros(embeddings.size)
    for block in embeddings.blocks(rows):
        moved = block - shift.astype(np.float32)
        total += moved.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", moved, moved, dtype=np.float64)
    shift = shift.astype(np.float32).astype(np.float64)
    mean = total / len(rows)
    variance = np.maximum(squares / len(rows) - mean**2, 0)
    scale = np.maximum(np.abs(shift + mean), 1e-12)
    varies = variance > (1e-6 * scale) ** 2
    return Standardisation(shift + mean, np.where(varies, np.sqrt(variance), 1.0))


def build(
    size: int, heads: int, hidden_layer_sizes: Sequence[int], standardisation: Standardisation
) -> tuple[Any, Any]:
    """Returns two Keras models over the same layers: probabilities, and their logits.

    Args:
        size: floats in an embedding.
        heads: outputs.
        hidden_layer_sizes: units of each hidden layer: dense, batch norm, ReLU. None of them makes
            a linear model.
        standardisation: of the embeddings.
    """
    keras = import_keras()
    embedding = keras.Input((size,), name="embedding")
    x = keras.layers.Normalization(
        mean=standardisation.mean, variance=standardisation.deviation**2, name="standardise"
    )(embedding)
    for number, units in enumerate(hidden_layer_sizes, 1):
        # Batch norm's own offset makes a bias before it superfluous.
        x = keras.layers.Dense(units, use_bias=False, name=f"hidden_{number}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{number}")(x)
        x = keras.layers.ReLU(name=f"relu_{number}")(x)
    logits = keras.layers.Dense(heads, name="logits")(x)
    probabilities = keras.layers.Activation("sigmoid", name="probabilities")(logits)
    return keras.Model(embedding, probabilities, name="head"), keras.Model(embedding, logits)


def masked_loss(labels: np.ndarray, class_weights: str) -> Callable[[Any, Any], Any]:
    """Returns binary cross-entropy over the labels that are there; NaN is none.

    Args:
        labels: (n, heads), of the whole training split: what `balanced` balances.
        class_weights: `none` or `balanced`.
    """
    from keras import ops

    positive, negative = weights_of(labels, class_weights)

    def loss(labels: Any, logits: Any) -> Any:
        known = ops.logical_not(ops.isnan(labels))
        wanted = ops.where(known, labels, ops.zeros_like(labels))
        each = ops.softplus(logits) - wanted * logits
        weight = ops.cast(known, each.dtype) * (wanted * positive + (1 - wanted) * negative)
        return ops.sum(each * weight) / ops.maximum(ops.sum(ops.cast(known, each.dtype)), 1)

    return loss


def weights_of(labels: np.ndarray, class_weights: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of positives and of negatives of each head, float32 (heads,)."""
    if class_weights == "none":
        ones = np.ones(labels.shape[1], np.float32)
        return ones, ones
    positive, negative = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    total = positive + negative
    return (
        (total / np.maximum(2 * positive, 1)).astype(np.float32),
        (total / np.maximum(2 * negative, 1)).astype(np.float32),
    )


def mean_loss(labels: np.ndarray, logits: np.ndarray, class_weights: str) -> float:
    """Returns what `masked_loss` measures, of plain arrays; `balanced` balances these labels."""
    positive, negative = weights_of(labels, class_weights)
    known = ~np.isnan(labels)
    wanted = np.where(known, labels, 0)
    each = (np.logaddexp(0, logits) - wanted * logits) * np.where(wanted == 1, positive, negative)
    return float(each[known].mean())


def mean_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the mean AUROC of the heads that have both classes; NaN where none has."""
    found = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        value = metrics.auroc(labels[known, column], scores[known, column])
        if not np.isnan(value):
            found.append(value)
    return float(np.mean(found)) if found else float("nan")


def fit(
    embeddings: MappedEmbeddings,
    train: tuple[np.ndarray, np.ndarray],
    tune: tuple[np.ndarray, np.ndarray],
    settings: NetworkSettings,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> tuple[Any, History]:
    """Trains a network and keeps the epoch whose AUROC on the tune split is best.

    Args:
        embeddings: the embeddings.
        train: rows (n,) and labels (n, heads) of the training split.
        tune: likewise of the tune split.
        settings: how.
        on_epoch: is told after each epoch.

    Returns:
        The Keras model that gives probabilities, and its history.
    """
    keras = import_keras()
    keras.utils.set_random_seed(settings.seed)
    rows, labels = train
    model, logits = build(
        embeddings.size, labels.shape[1], settings.hidden_layer_sizes,
        standardisation_of(embeddings, rows),
    )  # fmt: skip
    logits.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=masked_loss(labels, settings.class_weights),
        jit_compile=False,  # XLA's matrix products take twice as long on a CPU
    )
    tuning, history = _tuning_callback(keras, embeddings, tune, settings.class_weights, on_epoch)
    stopping = keras.callbacks.EarlyStopping(
        "tune_auroc", mode="max", patience=settings.patience, restore_best_weights=True
    )
    logits.fit(
        _batches(embeddings.values, rows, labels, settings.batch_size, settings.seed),
        epochs=settings.num_epochs, shuffle=False, verbose=0, callbacks=[tuning, stopping],
    )  # fmt: skip
    embeddings.release()
    return model, history


def _tuning_callback(
    keras: Any,
    embeddings: MappedEmbeddings,
    tune: tuple[np.ndarray, np.ndarray],
    class_weights: str,
    on_epoch: Callable[[Epoch], None],
) -> tuple[Any, History]:
    """Returns a callback that adds the exact AUROC on the tune split to an epoch's figures.

    Keras's own AUC is an approximation by 200 thresholds. The history fills as training goes on.
    """
    import time

    history = History()

    class Tuning(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.predict = predictor(self.model, embeddings)
            self.started = time.perf_counter()
            self.best = -np.inf

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            figures = logs if logs is not None else {}
            scores = self.predict(tune[0])
            value = mean_auroc(tune[1], scores)
            tune_loss = mean_loss(tune[1], scores, class_weights)
            figures["tune_auroc"] = value
            now = time.perf_counter()
            done = Epoch(
                epoch + 1, float(figures["loss"]), tune_loss, value, now - self.started,
                value > self.best,
            )  # fmt: skip
            self.best, self.started = max(self.best, value), now
            history.epochs.append(done)
            on_epoch(done)

    return Tuning(), history


def predictor(model: Any, embeddings: MappedEmbeddings) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from rows to the model's outputs, float32 (len(rows), outputs)."""
    tf = import_tensorflow()
    call = tf.function(
        lambda x: model(x, training=False),
        input_signature=[tf.TensorSpec((None, embeddings.size), tf.float32)],
    )

    def predict(rows: np.ndarray) -> np.ndarray:
        parts = [
            call(tf.constant(embeddings.values[rows[start : start + _PREDICT_ROWS]])).numpy()
            for start in range(0, len(rows), _PREDICT_ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, model.output_shape[-1]), np.float32)

    return predict


def _batches(
    values: np.ndarray, rows: np.ndarray, labels: np.ndarray, batch_size: int, seed: int
) -> Any:
    """Returns batches in a new order each epoch, gathered while the last one is computed.

    The images that do not fill a last batch sit out that epoch: batch norm over a few is noise.
    """
    tf = import_tensorflow()
    rng = np.random.default_rng(seed)
    size = min(batch_size, len(rows))
    steps = len(rows) // size

    def make() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = rng.permutation(len(rows))
        for step in range(steps):
            places = order[step * size : (step + 1) * size]
            yield values[rows[places]], labels[places]

    signature = (
        tf.TensorSpec((size, values.shape[1]), tf.float32),
        tf.TensorSpec((size, labels.shape[1]), tf.float32),
    )
    batches = tf.data.Dataset.from_generator(make, output_signature=signature)
    counted = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return counted.prefetch(_BATCHES_AHEAD)
