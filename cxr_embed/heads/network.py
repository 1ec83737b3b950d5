"""The head as a Keras model.

The saved model takes plain embeddings, float32 (n, d), and gives probabilities, (n, heads):
standardisation is inside. Its logit is the sum of a linear part and of a network.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cxr_embed.heads.batches import ahead
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.models.tensorflow.runtime import import_tensorflow

# Standardised floats are limited to so many standard deviations: rare extreme values would decide
# both parts of a head, where they say little.
LIMIT = 5.0

_PREDICT_ROWS = 4096
_ROWS_IN_CACHE = 32
# Of a float32: what varies by less does not vary.
_LAST_DIGIT = 2.0**-26
# Steps of an epoch, and the largest batch for which that holds.
_STEPS = ((16, 512), (64, 2048))
_SMALLEST_BATCH = 16


@dataclass(frozen=True)
class NetworkSettings:
    """How a network is built and trained.

    Attributes:
        hidden_layer_sizes: units of each hidden layer.
        num_epochs: the largest number of epochs.
        batch_size: images per step; 0 chooses it by the number of images.
        learning_rate: Adam's.
        patience: training stops after this many epochs without a lower loss on the tune split.
        seed: of the weights and of the order of the images.
        class_weights: `none`, or `balanced`: both classes of a head have the same total weight.
        dropout: share of each hidden layer's units that a step leaves out.
        calibrate: scale and shift the logits to fit the tune split.
    """

    hidden_layer_sizes: tuple[int, ...] = (512, 256)
    num_epochs: int = 100
    batch_size: int = 0
    learning_rate: float = 1e-3
    patience: int = 10
    seed: int = 0
    class_weights: str = "none"
    dropout: float = 0.5
    calibrate: bool = True

    def images_per_step(self, images: int) -> int:
        """Returns the batch size for a number of training images.

        Small sets get small batches, so that an epoch has about 16 steps. Large sets get large
        ones, with 64 steps or more an epoch: what a step costs besides matrix products then
        counts less.
        """
        if self.batch_size:
            return min(self.batch_size, images)
        sizes = [min(2 ** round(np.log2(max(images, 1) / steps)), most) for steps, most in _STEPS]
        return int(min(max(*sizes, _SMALLEST_BATCH), images))


@dataclass(frozen=True)
class Standardisation:
    """How embeddings are scaled: minus the mean, by the deviation, limited, times the factor.

    Attributes:
        mean: float64 (d,), of each float of an embedding.
        deviation: float64 (d,); 1 where a float never varies.
        factor: float64 (d,); 1, or see `in_own_proportions`; 0 where a float never varies.
        limit: deviations from the mean, at most: LIMIT, or infinity.
    """

    mean: np.ndarray
    deviation: np.ndarray
    factor: np.ndarray
    limit: float = LIMIT

    def in_own_proportions(self) -> Standardisation:
        """Returns the scaling that keeps the floats' deviations relative to each other.

        Equal deviations would amplify floats that hold little but noise.
        """
        deviation = self.deviation * self.factor
        return replace(self, factor=deviation / (np.sqrt(np.mean(deviation**2)) or 1.0))

    def unlimited(self) -> Standardisation:
        """Returns the scaling that leaves extreme values as they are."""
        return replace(self, limit=float("inf"))

    def take(self, values: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
        """Writes scaled copies of some rows.

        A few rows at a time: the passes over them then read the processor's cache.

        Args:
            values: float32 (n, d).
            rows: which of them.
            out: receives the copies, float32 (len(rows), d).
        """
        mean, scale, factor = (
            x.astype(np.float32) for x in (self.mean, 1 / self.deviation, self.factor)
        )
        is_equal = bool((factor == 1).all())
        plain = np.asarray(values)
        for start in range(0, len(rows), _ROWS_IN_CACHE):
            part = out[start : start + _ROWS_IN_CACHE]
            # Any other mode copies once more.
            np.take(plain, rows[start : start + _ROWS_IN_CACHE], axis=0, out=part, mode="clip")
            part -= mean
            part *= scale
            if np.isfinite(self.limit):
                np.clip(part, -self.limit, self.limit, out=part)
            if not is_equal:
                part *= factor

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Returns scaled embeddings, (n, d), in the precision of `values`."""
        kind = values.dtype
        scaled = (values - self.mean.astype(kind)) / self.deviation.astype(kind)
        if np.isfinite(self.limit):
            np.clip(scaled, -self.limit, self.limit, out=scaled)
        scaled *= self.factor.astype(kind)
        return scaled


def import_keras() -> Any:
    """Imports Keras with the TensorFlow backend, which overrides the user's setting."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    tf = import_tensorflow()
    import keras

    if tf.config.list_physical_devices("GPU"):
        # A processor computes the same twice by itself; a GPU only in this mode.
        tf.config.experimental.enable_op_determinism()
    return keras


def standardisation_of(embeddings: MappedEmbeddings, rows: np.ndarray) -> Standardisation:
    """Returns mean and deviation over some rows."""
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
    varies = variance > (_LAST_DIGIT * scale) ** 2
    deviation = np.where(varies, np.sqrt(variance), 1.0)
    return Standardisation(shift + mean, deviation, varies.astype(np.float64))


def build(
    size: int,
    heads: int,
    hidden_layer_sizes: Sequence[int],
    standardisation: Standardisation,
    dropout: float = 0.0,
    *,
    wide: bool = False,
) -> tuple[Any, Any]:
    """Returns the head, a Keras model that gives probabilities, and its network alone.

    The head's logit is the output of the layer `linear` plus, with hidden layers, that of the layer
    `network`. `linear` starts at zero and is not trained by gradients: `linear.solve` is exact.
    The network alone has the same layers; it takes embeddings that are scaled already and gives
    logits. It is None without hidden layers.

    Args:
        size: floats in an embedding.
        heads: outputs.
        hidden_layer_sizes: units of each hidden layer: dense, batch norm, ReLU, dropout. None of
            them makes a linear model.
        standardisation: of the embeddings.
        dropout: share of a hidden layer's units that a step leaves out.
        wide: whether the linear part takes standardised embeddings without limit, too.
    """
    keras = import_keras()
    embedding = keras.Input((size,), name="embedding")
    x = keras.layers.Normalization(
        mean=standardisation.mean, variance=standardisation.deviation**2, name="standardise"
    )(embedding)
    limited = keras.ops.clip(x, -LIMIT, LIMIT)
    linear_input = keras.layers.Concatenate(name="both")([limited, x]) if wide else limited
    logits = keras.layers.Dense(
        heads, kernel_initializer="zeros", trainable=False, name="linear"
    )(linear_input)  # fmt: skip
    x = limited if np.isfinite(standardisation.limit) else x
    if np.any(standardisation.factor != 1):
        x = keras.layers.Rescaling(standardisation.factor.tolist(), name="proportions")(x)
    layers = []
    for number, units in enumerate(hidden_layer_sizes, 1):
        # Batch norm's own offset makes a bias before it superfluous.
        layers += [
            keras.layers.Dense(units, use_bias=False, name=f"hidden_{number}"),
            keras.layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{number}"),
            keras.layers.ReLU(name=f"relu_{number}"),
        ]
        if dropout:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout_{number}"))
    network = None
    if layers:
        layers.append(keras.layers.Dense(heads, name="network"))
        scaled = keras.Input((size,), name="scaled")
        network = keras.Model(scaled, functools.reduce(_call, layers, scaled), name="network_alone")
        logits = keras.layers.Add(name="logits")([logits, functools.reduce(_call, layers, x)])
    probabilities = keras.layers.Activation("sigmoid", name="probabilities")(logits)
    return keras.Model(embedding, probabilities, name="head"), network


def _call(value: Any, layer: Any) -> Any:
    return layer(value)


def masked_loss(labels: np.ndarray, class_weights: str) -> Callable[[Any, Any], Any]:
    """Returns binary cross-entropy over the known labels; NaN is an unknown one.

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
    """Returns the `masked_loss` of NumPy arrays; `balanced` balances these labels."""
    positive, negative = weights_of(labels, class_weights)
    known = ~np.isnan(labels)
    wanted = np.where(known, labels, 0)
    each = (np.logaddexp(0, logits) - wanted * logits) * np.where(wanted == 1, positive, negative)
    return float(each[known].mean())


def predictor(
    model: Any, embeddings: MappedEmbeddings, scaling: Standardisation | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from rows to the model's outputs, float32 (len(rows), outputs).

    Args:
        model: Keras, over embeddings.
        embeddings: the embeddings.
        scaling: for a model over embeddings that are scaled already.
    """
    tf = import_tensorflow()
    call = tf.function(
        lambda x: model(x, training=False),
        input_signature=[tf.TensorSpec((None, embeddings.size), tf.float32)],
    )

    def fill(rows: np.ndarray, out: np.ndarray) -> None:
        if scaling is None:
            # Any other mode copies once more.
            np.take(embeddings.values, rows, axis=0, out=out, mode="clip")
        else:
            scaling.take(embeddings.values, rows, out)

    def predict(rows: np.ndarray) -> np.ndarray:
        groups = [rows[i : i + _PREDICT_ROWS] for i in range(0, len(rows), _PREDICT_ROWS)]
        parts = [call(values).numpy() for values in ahead(fill, groups, embeddings.size)]
        return np.concatenate(parts) if parts else np.empty((0, model.output_shape[-1]), np.float32)

    return predict
