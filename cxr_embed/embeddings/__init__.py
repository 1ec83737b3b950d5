"""Reading embeddings back: records and packed files, joining labels, nearest neighbours."""

from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.loading import load_embeddings

__all__ = ["Embeddings", "load_embeddings"]
