"""cxr-embed: computes embeddings of chest radiographs.

The public functions and classes are imported on first use, so that `import cxr_embed` is quick and
imports neither TensorFlow nor Beam.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cxr_embed.embeddings.collection import Embeddings
    from cxr_embed.embeddings.loading import load_embeddings
    from cxr_embed.radiograph import Radiograph
    from cxr_embed.storage.radiographs import read_radiograph

_HOMES = {
    "Embeddings": "cxr_embed.embeddings.collection",
    "Radiograph": "cxr_embed.radiograph",
    "load_embeddings": "cxr_embed.embeddings.loading",
    "read_radiograph": "cxr_embed.storage.radiographs",
}

__all__ = ["Embeddings", "Radiograph", "__version__", "load_embeddings", "read_radiograph"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
