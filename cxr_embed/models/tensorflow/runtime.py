"""Imports TensorFlow on first use, without its start-up messages."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any, cast


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow. The import takes seconds, so it is delayed until a model is needed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # By default TensorFlow uses oneDNN only on processors with AVX-512. Without oneDNN an
    # EfficientNet-L2 takes 1.5 times as long, and embeddings would differ between machines.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _quiet_stderr(), _without_keras():
        import tensorflow

        # The first search for a GPU prints an error if there is none.
        tensorflow.config.list_physical_devices("GPU")
    return tensorflow


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Lets `import tensorflow` leave out Keras, which takes two seconds and no model needs here.

    TensorFlow does without where Keras is not installed. Keras can still be imported later.
    """
    name = "keras.src.optimizers"  # the module that TensorFlow imports in order to import Keras
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast(Any, None)  # Python's way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hides the messages that TensorFlow's C++ code prints before its log level takes effect.

    They are written to the file descriptor, such as "could not find cuda drivers" on a machine
    without a GPU. With TF_CPP_MIN_LOG_LEVEL=0 they are shown.
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
