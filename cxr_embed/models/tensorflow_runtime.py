"""TensorFlow itself: imported late and quietly, and asked which devices it sees."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

from cxr_embed.errors import UsageError


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow. It takes seconds, so nothing does so before a model is needed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow turns oneDNN on where the processor has AVX-512 and off elsewhere. Without it an
    # EfficientNet-L2 takes half as long again, and two kinds of machine compute in two ways.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _quiet_stderr():
        import tensorflow

        # The first look for a GPU prints an error wherever there is none.
        tensorflow.config.list_physical_devices("GPU")
    return tensorflow


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hides what TensorFlow's C++ side prints before its log level counts.

    It writes to the file descriptor, "could not find cuda drivers" on every laptop. With
    TF_CPP_MIN_LOG_LEVEL=0 everything is shown.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def choose_device(wanted: str) -> str:
    """Returns `cpu` or `gpu`, and readies it.

    Raises:
        UsageError: a device that was asked for is absent.
    """
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "tpu":
        raise UsageError("--device=tpu: no TPU is usable here; pass --device=auto or cpu")
    if wanted == "gpu" and not gpus:
        raise UsageError(
            "--device=gpu: TensorFlow sees no GPU here; install its CUDA libraries "
            "(pip install 'tensorflow[and-cuda]'), look what TF_CPP_MIN_LOG_LEVEL=0 says, or pass "
            "--device=cpu"
        )
    if wanted == "cpu":
        with contextlib.suppress(RuntimeError):  # devices in use since an earlier model
            tf.config.set_visible_devices([], "GPU")
        return "cpu"
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu" if gpus else "cpu"


def set_precision(precision: str, device: str) -> None:
    """Lets TensorFlow compute in bfloat16, or takes that back."""
    tf = import_tensorflow()
    option = "auto_mixed_precision" if device == "gpu" else "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({option: precision == "bfloat16"})
