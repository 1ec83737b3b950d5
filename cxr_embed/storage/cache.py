"""The user's cache folder, for models that are downloaded or exported once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the cache folder: $XDG_CACHE_HOME/cxr-embed, or ~/.cache/cxr-embed."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cxr-embed"
