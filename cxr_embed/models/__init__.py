"""Loads and runs embedding models; `loading.ENGINES` lists the engines."""

from cxr_embed.models import outputs
from cxr_embed.models.content import content_hash, content_id
from cxr_embed.models.loading import (
    check_is_there,
    engine_for,
    engine_names,
    kind_of,
    load,
    package_of,
    precision_of,
)
from cxr_embed.models.protocol import EmbeddingModel, SomeFailed
from cxr_embed.models.settings import (
    DEVICES,
    PRECISIONS,
    Endpoint,
    ModelSettings,
    batch_size_for,
    default_batch_size,
)

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "EmbeddingModel",
    "Endpoint",
    "ModelSettings",
    "SomeFailed",
    "batch_size_for",
    "check_is_there",
    "content_hash",
    "content_id",
    "default_batch_size",
    "engine_for",
    "engine_names",
    "kind_of",
    "load",
    "outputs",
    "package_of",
    "precision_of",
]
