"""The registry of engines; loads a model with one of them.

To add an engine, write a class with the members of `protocol.EmbeddingModel` whose constructor
takes `ModelSettings`, and add it to `ENGINES`. Another package registers an engine as an entry
point of the group `cxr_embed.engines`; the entry point's name is the value of `--engine`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from cxr_embed.errors import UsageError
from cxr_embed.models.content import check_is_there
from cxr_embed.models.protocol import EmbeddingModel
from cxr_embed.models.settings import ModelSettings

_GROUP = "cxr_embed.engines"

# The keys are the values of --engine, except `vertex`, which is used for every endpoint.
ENGINES: dict[str, str] = {
    "tensorflow": "cxr_embed.models.tensorflow.saved_model:SavedModel",
    "openvino": "cxr_embed.models.openvino:OpenVinoModel",
    "vertex": "cxr_embed.models.vertex:VertexModel",
}


def engine_names() -> list[str]:
    """Returns the valid values of `--engine`."""
    others = [point.name for point in importlib.metadata.entry_points(group=_GROUP)]
    return [*(name for name in ENGINES if name != "vertex"), *others]


def load(settings: ModelSettings) -> EmbeddingModel:
    """Loads a model.

    Raises:
        UsageError: the model cannot be used, or the device or engine is not available.
    """
    check_is_there(settings)
    model: EmbeddingModel = _engine(settings.engine)(settings)
    return model


def _engine(name: str) -> Any:
    if name in ENGINES:
        module, _, member = ENGINES[name].partition(":")
        return getattr(importlib.import_module(module), member)
    for point in importlib.metadata.entry_points(group=_GROUP, name=name):
        return point.load()
    raise UsageError(f"--engine {name} is not known: one of {', '.join(engine_names())}")
