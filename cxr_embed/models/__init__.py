"""Loads and runs embedding models; `loading.ENGINES` lists the engines."""

from cxr_embed.models.content import check_is_there, content_hash, content_id
from cxr_embed.models.loading import engine_names, load
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
    "engine_names",
    "load",
]
