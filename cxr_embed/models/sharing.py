"""Shares one copy of each model in a process, and classifies its errors."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_embed.errors import ImageRejected, MachineFault, NotFetched, one_line
from cxr_embed.faults import Streak, machine_fault
from cxr_embed.models import EmbeddingModel, ModelSettings, SomeFailed, content_id, load
from cxr_embed.outcomes import Stage
from cxr_embed.radiograph import Radiograph


class SharedModel:
    """A loaded model that all threads of a process share; one thread calls it at a time.

    Args:
        settings: the model to load.

    Attributes:
        model: the loaded model.

    Raises:
        UsageError: the model cannot be used.
        MachineFault: the model has other content than `settings.content`.
    """

    def __init__(self, settings: ModelSettings) -> None:
        if settings.content and _content_here(settings) != settings.content:
            raise MachineFault(
                f"the model at {settings.path} differs on this worker from the one that the run "
                "was started with: give all workers the same model"
            )
        self.model: EmbeddingModel = load(settings)
        self._lock = threading.Lock()
        self._streak = Streak(f"the model {settings.path}")

    def fit(self, radiograph: Radiograph) -> Any:
        """Converts a radiograph to the model's input, or returns an `ImageRejected`.

        Raises:
            MachineFault: the error affects all images.
        """
        try:
            return self.model.fit(radiograph)
        except ImageRejected as rejected:
            return rejected
        except Exception as error:
            if fault := machine_fault(error, Stage.INFER):
                raise fault from error
            return ImageRejected("model_error", f"cannot be fitted: {_describe(error)}")

    def embed_each(self, images: Sequence[Any]) -> list[np.ndarray | ImageRejected]:
        """Returns for each image its embedding or an `ImageRejected`.

        A call of the model has at most `best_batch_size` images, so that on a CPU an embedding
        does not depend on the other images.

        Args:
            images: results of `fit`, any number.

        Returns:
            float32 of shape (n,), or `ImageRejected` with `model_error` or `not_finite`.

        Raises:
            MachineFault: the error affects all images.
        """
        size = self.model.best_batch_size
        results: list[np.ndarray | ImageRejected] = []
        with self._lock:
            for start in range(0, len(images), size):
                results += map(self._judged, self._embed(images[start : start + size]))
        return results

    def _embed(self, images: Sequence[Any]) -> Sequence[np.ndarray | Exception]:
        """Runs one batch; if it fails as a whole, runs each image separately."""
        try:
            return list(self.model.embed(images))
        except SomeFailed as some:
            return some.results
        except Exception as error:
            if fault := machine_fault(error, Stage.INFER):
                raise fault from error
            if len(images) == 1:
                return [error]
            return [result for image in images for result in self._embed([image])]

    def _judged(self, result: np.ndarray | Exception) -> np.ndarray | ImageRejected:
        if isinstance(result, Exception):
            if fault := machine_fault(result, Stage.INFER):
                raise fault from result
            rejected = ImageRejected("model_error", _describe(result))
        elif np.isfinite(result).all():
            self._streak.succeeded()
            return result
        else:
            rejected = ImageRejected("not_finite", "the model gave NaN or infinity")
        self._streak.failed(rejected)
        return rejected


def _content_here(settings: ModelSettings) -> str:
    try:
        return content_id(settings)
    except NotFetched as error:  # the launcher could fetch it
        raise MachineFault(str(error)) from error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


_lock = threading.Lock()
_loaded: weakref.WeakValueDictionary[ModelSettings, SharedModel] = weakref.WeakValueDictionary()
# Keeps the last model, so that a second run in the same process does not load it again.
_latest: list[SharedModel] = []


def shared(settings: ModelSettings) -> SharedModel:
    """Returns this process's copy of a model; loads it if it is not in memory."""
    with _lock:
        found = _loaded.get(settings)
        if found is None:
            _latest.clear()
            found = _loaded[settings] = SharedModel(settings)
        _latest[:] = [found]
        return found
