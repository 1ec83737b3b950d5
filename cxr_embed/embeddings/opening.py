"""Opens what holds embeddings at a path, and finds out its kind."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cxr_embed import members, storage
from cxr_embed.elements import RECORD_SUFFIX, RUNS_FOLDER
from cxr_embed.embeddings.npz import npz_parts
from cxr_embed.embeddings.parquet import parquet_parts
from cxr_embed.embeddings.parts import NPZ_SUFFIX, PARQUET_SUFFIX, SHARD_NAME, Parts
from cxr_embed.embeddings.record_files import record_parts
from cxr_embed.embeddings.tfrecord_shards import shard_parts
from cxr_embed.errors import PlaceLost, PlaceUnavailable, UsageError
from cxr_embed.storage.addresses import holds_only_images

_SUFFIXES = (RECORD_SUFFIX, PARQUET_SUFFIX, NPZ_SUFFIX)


class NotRead(UsageError):
    """A packed file that cannot be read, so that it is unknown whether it is damaged."""


def place_of_embeddings(path: str) -> str:
    """Checks where embeddings are said to be.

    Args:
        path: a folder or a file, local or in a bucket, an archive of them, or a member.

    Returns:
        The path; of an archive, the address of its members.

    Raises:
        UsageError: the address is not valid, or its place holds only images.
    """
    storage.check_place(path, "the path")
    if holds_only_images(path):
        raise UsageError(
            f"{path} holds images: name the output that has their embeddings, a folder, a bucket's "
            "prefix or an archive"
        )
    try:
        return members.join(path, "") if storage.is_archive(path) else path
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


@contextlib.contextmanager
def open_parts(path: str, ids: Collection[str] | None = None) -> Iterator[Parts]:
    """Finds out what lies at `path`.

    Args:
        path: an output of the main job, one record, a packed folder, or one packed file; on a
            disk, in a bucket or in an archive. Packed files that are not on a disk are fetched into
            a temporary folder first.
        ids: only records of these dicom ids; packed parts are not narrowed down.

    Yields:
        The parts. They are to be read before the context ends.

    Raises:
        UsageError: nothing there, or it cannot be used.
        PlaceLost: the service does not answer any more.
    """
    path = place_of_embeddings(path)
    files = sorted(embedding_files(path))
    is_file = len(files) == 1 and is_embedding_file(path)
    start = storage.start_of(path)
    names = [path] if is_file else [start + file for file in files]
    kinds = {kind_of(name) for name in names}
    if not names:
        raise UsageError(
            f"no embeddings in {path}: neither {RECORD_SUFFIX} nor {PARQUET_SUFFIX} nor "
            f"{NPZ_SUFFIX} files"
        )
    if len(kinds) > 1:
        raise UsageError(f"{path} holds embeddings of several kinds ({', '.join(sorted(kinds))})")
    kind = kinds.pop()
    if kind == "records":
        yield replace(record_parts(path, names, ids), files=files)
        return
    if not is_file:
        refuse_unfinished(path, files)
    with _local(names) as local:
        yield replace(_packed_parts(path, kind, local), files=files)


def _packed_parts(path: str, kind: str, files: list[str]) -> Parts:
    if kind == "parquet":
        return parquet_parts(path, files)
    if kind == "npz":
        return npz_parts(path, files)
    return shard_parts(path, files)


def embedding_files(path: str) -> Iterator[str]:
    """Yields the files that may hold embeddings: below `path`, or the name of `path` itself."""
    if is_embedding_file(path):
        yield path.rpartition("/")[2]
        return
    try:
        for below in storage.list_paths(path):
            if below.endswith(_SUFFIXES) and not below.startswith(f"{RUNS_FOLDER}/"):
                yield below
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error}") from error


def is_embedding_file(path: str) -> bool:
    """Whether a path is one file that may hold embeddings, not a folder of them."""
    if not path.endswith(_SUFFIXES):
        return False
    return Path(path).is_file() if storage.is_on_disk(path) else storage.exists(path)


def kind_of(name: str) -> str:
    """Returns the kind of a file of embeddings, by its name; see `Parts`."""
    if name.endswith(PARQUET_SUFFIX):
        return "parquet"
    if name.endswith(NPZ_SUFFIX):
        return "npz"
    return "tfrecord" if SHARD_NAME.search(name) else "records"


def refuse_unfinished(path: str, names: Sequence[str]) -> None:
    """Raises UsageError where shards are missing, by the numbers in the names of the others."""
    found: dict[tuple[str, int], int] = {}
    for name in names:
        if shard := SHARD_NAME.search(name):
            key = (str(PurePosixPath(name).parent), int(shard[2]))
            found[key] = found.get(key, 0) + 1
    for (_, expected), number in found.items():
        if number != expected:
            raise UsageError(
                f"{path} is not whole: {number} of {expected} shards; run cxr-embed pack again"
            )


@contextlib.contextmanager
def _local(names: list[str]) -> Iterator[list[str]]:
    if storage.is_on_disk(names[0]):
        yield names
        return
    with tempfile.TemporaryDirectory(prefix="cxr-embed-") as folder:
        files = [
            str(Path(folder, f"{n:05d}-{PurePosixPath(name).name}")) for n, name in enumerate(names)
        ]
        for name, file in zip(names, files, strict=True):
            storage.write_whole(file, _read(name))
        yield files


def _read(name: str) -> bytes:
    try:
        return storage.read_bytes(name)
    except PlaceUnavailable as error:
        raise PlaceLost(str(error)) from error
    except OSError as error:
        raise NotRead(f"{name} cannot be read: {error.strerror or error}") from error
