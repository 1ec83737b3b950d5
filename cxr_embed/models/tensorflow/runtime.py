"""TensorFlow itself, imported late and quietly."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any


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
