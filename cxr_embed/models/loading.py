"""The registry of engines, and loading a model with one of them.

A further engine is a class with the members of `protocol.EmbeddingModel`, made from
`ModelSettings`, and one line in `ENGINES`. Other packages add theirs as an entry point of the group
`cxr_embed.engines`, whose name is the value of `--engine`.
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

# By the value of --engine, except `vertex`, which an endpoint implies.
ENGINES: dict[str, str] = {
    "tensorflow": "cxr_embed.models.tensorflow.saved_model:SavedModel",
    "openvino": "cxr_embed.models.openvino:OpenVinoModel",
    "vertex": "cxr_embed.models.vertex:VertexModel",
}


def engine_names() -> list[str]:
    """Returns the values that `--engine` takes."""
    others = [point.name for point in importlib.metadata.entry_points(group=_GROUP)]
    return [*(name for name in ENGINES if name != "vertex"), *others]


def load(settings: ModelSettings) -> EmbeddingModel:
    """Loads a model.

    Raises:
        UsageError: there is no usable model at that path, or the device or engine is absent.
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
