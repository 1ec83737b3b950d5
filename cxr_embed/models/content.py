"""Identifies a model by a hash of the files that determine its embeddings."""

from __future__ import annotations

import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cxr_embed.models.kinds import ModelKind
from cxr_embed.models.loading import engine_for, kind_of
from cxr_embed.models.settings import ModelSettings


def content_id(settings: ModelSettings) -> str:
    """Returns the identity of a model: the hash of the content of all its parts.

    For a hosted model it is the endpoint's name, since the content is not accessible.
    """
    if settings.endpoint is not None:
        return settings.endpoint.name
    kind = kind_of(settings.engine)
    parts = kind.parts(settings)
    if len(parts) == 1:
        return content_hash(parts[0], kind)
    hashes = "\n".join(content_hash(part, kind) for part in parts)
    return hashlib.sha256(hashes.encode()).hexdigest()


def content_hash(path: str, kind: ModelKind | None = None) -> str:
    """Returns the SHA-256 of the names and contents of the files that determine the embeddings.

    Args:
        path: the model.
        kind: its kind; by default that of its default engine.
    """
    kind = kind or kind_of(engine_for(path))
    files = sorted(kind.content(path).items())
    # Cached, since the launcher and the workers in the same process all need it.
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for _, file in files)
    return _hash_of(state, tuple(name for name, _ in files))


@functools.lru_cache(maxsize=16)
def _hash_of(files: tuple[tuple[str, int, int], ...], names: tuple[str, ...]) -> str:
    with ThreadPoolExecutor(4) as pool:  # hashlib releases the GIL
        digests = list(pool.map(lambda file: _file_hash(Path(file[0])), files))
    total = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
