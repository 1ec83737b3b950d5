"""Chooses the devices that TensorFlow runs a model on: the CPU, GPUs, or the TPU of this host.

A model has one replica on each device of the chosen kind. A call passes one part of the batch to
each replica. A single CPU or GPU is called directly; all other devices are called through
`tf.distribute.Strategy.run`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.tensorflow.graph_part import GraphPart
from cxr_embed.models.tensorflow.mixed_precision import in_bfloat16
from cxr_embed.models.tensorflow.runtime import import_tensorflow

# Takes the inputs by name of each replica, and returns the result of each replica: an array, or a
# tuple of arrays.
Call = Callable[[list[dict[str, np.ndarray]]], list[Any]]


class Placement:
    """The devices that a model runs on.

    Args:
        kind: `cpu`, `gpu` or `tpu`.
        replicas: number of devices.
        precision: `float32` or `bfloat16`.
        strategy: the distribution strategy; None is TensorFlow's default.

    Attributes:
        has_fixed_shapes: whether every call should have the same number of images, since a new
            number compiles or tunes the kernels again.
        name: name for messages.
    """

    def __init__(
        self, kind: str, replicas: int = 1, precision: str = "float32", *, strategy: Any = None
    ) -> None:
        self.kind, self.replicas, self.precision = kind, replicas, precision
        self.has_fixed_shapes = kind != "cpu" or replicas > 1
        self.name = kind if replicas == 1 else f"{replicas} x {kind}"
        self._strategy = strategy

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context to load a model in, so that each device gets its weights."""
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    def ready(self, part: GraphPart) -> Call:
        """Returns a function that runs a part of a graph on all replicas in parallel.

        Raises:
            UsageError: a TPU does not support the input.
        """
        if part.takes_strings and self.kind == "tpu":
            raise UsageError(
                f"the model's input {part.names[0]} takes PNGs, which a TPU cannot read: "
                "name a signature that takes images in a --model_config"
            )
        function: Callable[..., Any] = part
        # TensorFlow rewrites the graph for one CPU, and XLA for a TPU. GPUs need our rewriter.
        if self.precision == "bfloat16" and self.has_fixed_shapes and self.kind != "tpu":
            function = in_bfloat16(part)
        elif self._strategy is not None:
            function = part.rebuilt()
        if self._strategy is None:
            return lambda pieces: [_arrays(function(_tensors(pieces[0])))]
        return _Replicated(function, self._strategy)

    def prepare_thread(self) -> None:
        """Makes calls of this thread compute in this placement's precision."""
        _apply_precision(self.precision, self.kind)


class _Replicated:
    """Runs one function on all devices of a strategy; it is traced once per input shape.

    Attributes:
        step: the `tf.function` that is called.
    """

    def __init__(self, function: Callable[..., Any], strategy: Any) -> None:
        self._strategy = strategy
        # A TPU does not support eager calls, so the strategy is called inside a function.
        self.step = import_tensorflow().function(
            lambda inputs: strategy.run(function, args=(inputs,))
        )

    def __call__(self, pieces: list[dict[str, np.ndarray]]) -> list[Any]:
        spread = self._strategy.experimental_distribute_values_from_function
        tensors = [_tensors(piece) for piece in pieces]

        def values(name: str) -> Any:
            return spread(lambda context: tensors[context.replica_id_in_sync_group][name])

        results = self.step({name: values(name) for name in pieces[0]})
        local = self._strategy.experimental_local_results
        if isinstance(results, tuple):
            return [_arrays(one) for one in zip(*map(local, results), strict=True)]
        return [_arrays(result) for result in local(results)]


def _arrays(result: Any) -> Any:
    """Returns the array of a tensor, or the arrays of a tuple of tensors."""
    return tuple(map(_arrays, result)) if isinstance(result, tuple) else result.numpy()


def _tensors(piece: dict[str, np.ndarray]) -> dict[str, Any]:
    tf = import_tensorflow()
    return {name: tf.constant(value) for name, value in piece.items()}


def choose(wanted: str, precision: str = "float32") -> Placement:
    """Chooses and configures the devices.

    Args:
        wanted: `auto` (a GPU, else a TPU for bfloat16, else the CPU), `cpu`, `gpu` or `tpu`.
        precision: `float32` or `bfloat16`.

    Returns:
        All devices of the chosen kind that TensorFlow finds on this host.

    Raises:
        UsageError: the wanted device is not available or does not support the precision.
    """
    tf = import_tensorflow()
    gpus, has_tpu = tf.config.list_physical_devices("GPU"), _sees_tpu()
    if wanted == "gpu" and not gpus:
        raise UsageError(
            "--device=gpu: TensorFlow sees no GPU here; install its CUDA libraries "
            "(pip install 'tensorflow[and-cuda]'), set TF_CPP_MIN_LOG_LEVEL=0 to show its "
            "messages, or pass --device=cpu"
        )
    if wanted == "tpu" and not has_tpu:
        raise UsageError(
            "--device=tpu: TensorFlow sees no TPU here (a TPU machine needs the package "
            "tensorflow-tpu); pass --device=auto or cpu"
        )
    # A TPU always multiplies in bfloat16, so `auto` does not choose it for float32.
    if wanted == "tpu" or (wanted == "auto" and has_tpu and not gpus and precision == "bfloat16"):
        return _choose_tpu(precision)
    if wanted == "cpu":
        with contextlib.suppress(RuntimeError):  # an earlier model has initialised the devices
            tf.config.set_visible_devices([], "GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    kind = "gpu" if gpus and wanted != "cpu" else "cpu"
    _apply_precision(precision, kind)
    devices = [device.name for device in tf.config.list_logical_devices(kind.upper())]
    strategy = tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None
    return Placement(kind, len(devices), precision, strategy=strategy)


def _sees_tpu() -> bool:
    tf = import_tensorflow()
    return any(tf.config.list_physical_devices(kind) for kind in ("TPU", "TPU_SYSTEM"))


def _choose_tpu(precision: str) -> Placement:
    if precision != "bfloat16":
        raise UsageError("--device=tpu multiplies in bfloat16: also pass --precision=bfloat16")
    try:
        strategy = _tpu_strategy()
    except Exception as error:
        raise UsageError(f"--device=tpu: the TPU cannot be used: {one_line(error)}") from error
    return Placement("tpu", strategy.num_replicas_in_sync, precision, strategy=strategy)


@functools.cache
def _tpu_strategy() -> Any:
    """Initialises this host's TPU once, since initialising it again clears its memory."""
    tf = import_tensorflow()
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


_of_thread = threading.local()


def _apply_precision(precision: str, kind: str) -> None:
    """Turns TensorFlow's bfloat16 options on or off for calls of this thread.

    TensorFlow keeps a copy of the options for each thread that has called a function, and changing
    them renews the copy of the changing thread only. So each thread applies them before it calls a
    model; otherwise a thread that has run one model in bfloat16 would run the next one so, too.
    """
    if getattr(_of_thread, "precision", None) == (precision, kind):
        return
    tf = import_tensorflow()
    half = precision == "bfloat16"
    # The option for GPUs, auto_mixed_precision, uses float16, so `Placement.ready` is used instead.
    rewriter = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({rewriter: half and kind == "cpu"})
    # Without TensorFloat-32, float32 on a GPU matches a CPU, so that one output may mix both.
    tf.config.experimental.enable_tensor_float_32_execution(half)
    _of_thread.precision = (precision, kind)
