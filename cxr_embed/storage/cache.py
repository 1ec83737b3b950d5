"""Where this program keeps what it fetches or makes once for each user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns this program's cache: $XDG_CACHE_HOME/cxr-embed, or ~/.cache/cxr-embed."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cxr-embed"
