"""The model that is used without --model_path: exported once, kept in the user's cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cxr_embed.errors import UsageError
from cxr_embed.storage.cache import cache_folder

ARCHITECTURE = "efficientnet-l2"
IMAGE_SIZE = 475
EMBEDDING_SIZE = 4096
SEED = 0

# Raise it whenever the exporter gives other numbers, so that a stale cache is not used.
_VERSION = 1

_ABANDONED_SECONDS = 3600


def ensure_reference_model(say: Callable[[str], None]) -> str:
    """Returns the folder of the reference EfficientNet-L2, exporting it at the first call.

    Its weights are seeded and random: it shows that all works and how fast, nothing more.

    Args:
        say: tells a person one line.

    Raises:
        UsageError: it cannot be written, for want of disk space for one.
    """
    name = f"{ARCHITECTURE}-{IMAGE_SIZE}-{EMBEDDING_SIZE}-random-{SEED}-v{_VERSION}"
    folder = cache_folder() / "models" / name
    if not folder.is_dir():
        from cxr_embed.efficientnet.export import export_model

        say(f"writing the reference model to {folder}, once; it takes a minute and 2 GB")
        _remove_what_killed_exports_left(folder.parent)
        try:
            export_model(
                folder,
                architecture=ARCHITECTURE,
                image_size=IMAGE_SIZE,
                embedding_size=EMBEDDING_SIZE,
                weights="random",
                seed=SEED,
            )
        except UsageError:
            if not folder.is_dir():  # else another run was quicker
                raise
    return str(folder)


def _remove_what_killed_exports_left(models: Path) -> None:
    """Removes half-written models that nobody has touched for a while: 2 GB each."""
    for partial in models.glob(".*.partial"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)
