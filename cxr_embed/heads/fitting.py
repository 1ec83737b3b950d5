"""Training of the network: epochs until the tune split no longer gains, or a number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_embed.heads import metrics
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
from cxr_embed.models.tensorflow.runtime import import_tensorflow

_BATCHES_AHEAD = 2


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

    Returns:
        The Keras model that gives probabilities, its linear part still zero, and its history.
    """
    keras = import_keras()
    keras.utils.set_random_seed(settings.seed)
    rows, labels = train
    model, logits = build(
        embeddings.size, labels.shape[1], settings.hidden_layer_sizes,
        standardisation or standardisation_of(embeddings, rows), settings.dropout,
    )  # fmt: skip
    logits.compile(
        optimizer=fused_adam(keras, settings.learning_rate),
        loss=masked_loss(labels, settings.class_weights),
        jit_compile=False,  # XLA's matrix products take twice as long on a CPU
    )
    tuning, history = _tuning_callback(keras, embeddings, tune, settings.class_weights, on_epoch)
    stopping = keras.callbacks.EarlyStopping(
        "tune_loss", mode="min", patience=settings.patience, restore_best_weights=True
    )
    logits.fit(
        _batches(
            embeddings.values, rows, labels, settings.images_per_step(len(rows)), settings.seed
        ),
        epochs=settings.num_epochs, shuffle=False, verbose=0, callbacks=[tuning, stopping],
    )  # fmt: skip
    embeddings.release()
    return model, history


def fused_adam(keras: Any, learning_rate: float) -> Any:
    """Returns Adam, each variable's step one operation of TensorFlow.

    Keras's own makes several passes over every weight, which on a CPU takes a third as long as the
    matrix products.
    """
    tf = import_tensorflow()

    class FusedAdam(keras.optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            step = tf.cast(self.iterations.value, variable.dtype) + 1
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=self.beta_1**step, beta2_power=self.beta_2**step,
                lr=tf.cast(learning_rate, variable.dtype), beta1=self.beta_1, beta2=self.beta_2,
                epsilon=self.epsilon, grad=gradient,
            )  # fmt: skip

    return FusedAdam(learning_rate)


def _tuning_callback(
    keras: Any,
    embeddings: MappedEmbeddings,
    tune: tuple[np.ndarray, np.ndarray],
    class_weights: str,
    on_epoch: Callable[[Epoch], None],
) -> tuple[Any, History]:
    """Returns a callback that adds the loss on the tune split to an epoch's figures.

    The history fills as training goes on. Its AUROC is exact; Keras's own is an approximation by
    200 thresholds.
    """
    history = History()

    class Tuning(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.predict = predictor(self.model, embeddings)
            self.started = time.perf_counter()
            self.best = np.inf

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            figures = logs if logs is not None else {}
            scores = self.predict(tune[0])
            value = mean_auroc(tune[1], scores)
            tune_loss = mean_calibrated_loss(tune[1], scores, class_weights)
            figures["tune_loss"] = tune_loss
            seconds = time.perf_counter() - self.started
            done = Epoch(
                epoch + 1, float(figures["loss"]), tune_loss, value, seconds,
                tune_loss < self.best,
            )  # fmt: skip
            self.best = min(self.best, tune_loss)
            history.epochs.append(done)
            on_epoch(done)
            self.started = time.perf_counter()

    return Tuning(), history


def _batches(
    values: np.ndarray, rows: np.ndarray, labels: np.ndarray, batch_size: int, seed: int
) -> Any:
    """Returns batches in a new order each epoch, gathered while the previous one is computed.

    The images that do not fill a last batch are left out of that epoch, because batch norm over a
    few images is noise.
    """
    tf = import_tensorflow()
    rng = np.random.default_rng(seed)
    size = batch_size
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


class StepTrainer:
    """One network with one output, trained again and again from fresh weights.

    Building and tracing a network takes longer than a few steps of it.

    Args:
        embeddings: the embeddings.
        standardisation: of them.
        settings: layers, batch size and learning rate.
    """

    def __init__(
        self,
        embeddings: MappedEmbeddings,
        standardisation: Standardisation,
        settings: NetworkSettings,
    ) -> None:
        self._embeddings, self._settings = embeddings, settings
        _, self._logits = build(
            embeddings.size, 1, settings.hidden_layer_sizes, standardisation, settings.dropout
        )
        self._optimizer = fused_adam(import_keras(), settings.learning_rate)
        self._optimizer.build(self._logits.trainable_variables)
        self._fresh_weights = self._logits.get_weights()
        self._fresh_state = [np.array(v) for v in self._optimizer.variables]
        self._step = self._traced_step(embeddings.size)
        self.logits = predictor(self._logits, embeddings)

    def _traced_step(self, size: int) -> Any:
        tf = import_tensorflow()
        loss = masked_loss(np.array([[0.0], [1.0]], np.float32), "none")

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, size), tf.float32), tf.TensorSpec((None, 1), tf.float32),
            ]
        )  # fmt: skip
        def step(values: Any, labels: Any) -> None:
            with tf.GradientTape() as tape:
                value = loss(labels, self._logits(values, training=True))
            variables = self._logits.trainable_variables
            self._optimizer.apply_gradients(
                zip(tape.gradient(value, variables), variables, strict=True)
            )

        return step

    def train(self, rows: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> None:
        """Trains from fresh weights.

        Args:
            rows: (n,), of the embeddings.
            labels: float32 (n,), 0 or 1.
            steps: how many batches.
            seed: of the weights and of the order.
        """
        tf = import_tensorflow()
        rng = np.random.default_rng(seed)
        self._logits.set_weights([_redrawn(weights, rng) for weights in self._fresh_weights])
        for variable, value in zip(self._optimizer.variables, self._fresh_state, strict=True):
            variable.assign(value)
        size = min(self._settings.batch_size, len(rows))
        order = np.empty(0, np.int64)
        for _ in range(steps):
            if len(order) < size:
                order = rng.permutation(len(rows))
            at, order = order[:size], order[size:]
            values = self._embeddings.values[rows[at]]
            self._step(tf.constant(values), tf.constant(labels[at, None]))


def _redrawn(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns matrices drawn anew, as Keras draws them (Glorot's uniform); others as they are."""
    if weights.ndim != 2:
        return weights
    limit = np.sqrt(6 / sum(weights.shape))
    return rng.uniform(-limit, limit, weights.shape).astype(np.float32)
