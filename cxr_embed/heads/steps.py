"""Steps of gradient descent on a network.

Keras's own loop is not used: it takes several times as long for small sets, and on large ones it
copies and scales each batch while the processor waits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cxr_embed.heads.batches import ahead
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import (
    NetworkSettings,
    Standardisation,
    build,
    import_keras,
    masked_loss,
    predictor,
)
from cxr_embed.models.tensorflow.runtime import import_tensorflow


class Steps:
    """Steps of Adam on a network.

    Args:
        network: Keras, gives logits.
        learning_rate: Adam's.
        loss: from labels and logits to a number.
    """

    def __init__(self, network: Any, learning_rate: float, loss: Callable[[Any, Any], Any]) -> None:
        tf = import_tensorflow()
        variables = network.trainable_variables
        optimizer = fused_adam(import_keras(), learning_rate)
        optimizer.build(variables)
        self._optimizer = optimizer
        self._fresh_state = [np.array(v) for v in optimizer.variables]

        @tf.function(
            input_signature=[
                tf.TensorSpec(network.input_shape, tf.float32),
                tf.TensorSpec(network.output_shape, tf.float32),
            ]
        )
        def step(values: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(labels, network(values, training=True))
            optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
            return value

        self._step = step

    def __call__(self, values: Any, labels: np.ndarray) -> float:
        """Makes one step with float32 (n, d) and (n, heads); returns the loss before it."""
        return float(self._step(values, labels))

    def forget(self) -> None:
        """Puts Adam's state back to what it was before the first step."""
        for variable, value in zip(self._optimizer.variables, self._fresh_state, strict=True):
            variable.assign(value)


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
        self._scaling = standardisation
        _, self._network = build(
            embeddings.size, 1, settings.hidden_layer_sizes, standardisation, settings.dropout
        )
        both = np.array([[0.0], [1.0]], np.float32)
        self._steps = Steps(self._network, settings.learning_rate, masked_loss(both, "none"))
        self._fresh_weights = self._network.get_weights()
        self.logits = predictor(self._network, embeddings, standardisation)

    def train(self, rows: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> None:
        """Trains from fresh weights.

        Args:
            rows: (n,), of the embeddings.
            labels: float32 (n,), 0 or 1.
            steps: how many batches.
            seed: of the weights and of the order.
        """
        rng = np.random.default_rng(seed)
        self._network.set_weights([_redrawn(weights, rng) for weights in self._fresh_weights])
        self._steps.forget()
        size = min(self._settings.batch_size, len(rows))
        orders: list[np.ndarray] = []
        order = np.empty(0, np.int64)
        for _ in range(steps):
            if len(order) < size:
                order = rng.permutation(len(rows))
            orders.append(order[:size])
            order = order[size:]
        fill = partial(self._scaling.take, self._embeddings.values)
        batches = ahead(fill, [rows[order] for order in orders], self._embeddings.size)
        for order, values in zip(orders, batches, strict=True):
            self._steps(values, labels[order, None])


def _redrawn(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns matrices drawn anew, as Keras draws them (Glorot's uniform); others as they are."""
    if weights.ndim != 2:
        return weights
    limit = np.sqrt(6 / sum(weights.shape))
    return rng.uniform(-limit, limit, weights.shape).astype(np.float32)
