"""One copy of each model in a process, and who is to blame where it fails."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_embed.errors import ImageRejected, MachineFault, one_line
from cxr_embed.faults import Streak, machine_fault
from cxr_embed.models import EmbeddingModel, ModelSettings, SomeFailed, content_id, load
from cxr_embed.outcomes import Stage
from cxr_embed.radiograph import Radiograph


class SharedModel:
    """A loaded model as all threads of a process use it: one call at a time.

    Args:
        settings: what to load.

    Attributes:
        model: the loaded model.

    Raises:
        UsageError: it cannot be used.
        MachineFault: it is another one than the settings' `content` names.
    """

    def __init__(self, settings: ModelSettings) -> None:
        if settings.content and content_id(settings) != settings.content:
            raise MachineFault(
                f"the model at {settings.path} here is another one than the run was started with: "
                "give all workers the same model"
            )
        self.model: EmbeddingModel = load(settings)
        self._lock = threading.Lock()
        self._streak = Streak(f"the model {settings.path}")

    def fit(self, radiograph: Radiograph) -> Any:
        """Returns a radiograph as the model takes it, or the `ImageRejected` that says why not.

        Raises:
            MachineFault: any radiograph would fail.
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
        """Returns for each fitted image its embedding, or why it has none.

        A call gets at most `best_batch_size` images, so that on a CPU an embedding never depends
        on the images beside it.

        Args:
            images: what `fit` returned, any number.

        Returns:
            float32 of shape (n,), or `ImageRejected` with `model_error` or `not_finite`.

        Raises:
            MachineFault: any image would fail.
        """
        size = self.model.best_batch_size
        results: list[np.ndarray | ImageRejected] = []
        with self._lock:
            for start in range(0, len(images), size):
                results += map(self._judged, self._embed(images[start : start + size]))
        return results

    def _embed(self, images: Sequence[Any]) -> Sequence[np.ndarray | Exception]:
        """Runs one batch; where it fails as a whole, image by image."""
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


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


_lock = threading.Lock()
_loaded: weakref.WeakValueDictionary[ModelSettings, SharedModel] = weakref.WeakValueDictionary()
# The last one asked for stays, so that a second run in the same process need not load it again.
_latest: list[SharedModel] = []


def shared(settings: ModelSettings) -> SharedModel:
    """Returns this process's copy of a model, loading it unless somebody holds it already."""
    with _lock:
        found = _loaded.get(settings)
        if found is None:
            _latest.clear()
            found = _loaded[settings] = SharedModel(settings)
        _latest[:] = [found]
        return found
