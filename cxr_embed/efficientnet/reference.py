"""The default model without --model_path: exported once into the user's cache."""

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

# Increase it whenever the exporter's weights change, so that a stale cache is not used.
_VERSION = 1

_ABANDONED_SECONDS = 3600


def ensure_reference_model(log: Callable[[str], None]) -> str:
    """Returns the folder of the reference EfficientNet-L2; the first call exports it.

    Its weights are random with a fixed seed: it is for tests and for measuring speed.

    Args:
        log: logs one line for the user.

    Raises:
        UsageError: the model cannot be written, for example because the disk is full.
    """
    name = f"{ARCHITECTURE}-{IMAGE_SIZE}-{EMBEDDING_SIZE}-random-{SEED}-v{_VERSION}"
    folder = cache_folder() / "models" / name
    if not folder.is_dir():
        from cxr_embed.efficientnet.export import export_model

        log(f"writing the reference model to {folder}, once; it takes a minute and 2 GB")
        _remove_abandoned(folder.parent)
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
            if not folder.is_dir():  # otherwise another run has finished first
                raise
    return str(folder)


def _remove_abandoned(models: Path) -> None:
    """Removes partial models of killed exports, which take 2 GB each."""
    for partial in models.glob(".*.partial"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)
