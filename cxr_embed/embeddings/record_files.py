"""Folders of records, one embedding a file, read in parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cxr_embed import storage
from cxr_embed.elements import RECORD_SUFFIX
from cxr_embed.embeddings.parts import Names, Parts
from cxr_embed.embeddings.record_decoder import RecordDecoder, WrongSize
from cxr_embed.errors import PlaceLost, PlaceUnavailable, UsageError, cannot_be_read
from cxr_embed.records import BadRecord, decode_record

ROWS_PER_PART = 1024
_DOWNLOADS = 16
_FIRST_RECORDS = 100
_AT_ONCE = 1 << 16


def record_name(path: str) -> str:
    """Returns the dicom id that a record's file name is."""
    return path.rpartition("/")[2].removesuffix(RECORD_SUFFIX)


def record_parts(path: str, names: Sequence[str], ids: Collection[str] | None = None) -> Parts:
    """Cuts a folder of records into parts.

    Args:
        path: the folder, for messages.
        names: paths of the records, sorted.
        ids: only records of these dicom ids.

    Raises:
        UsageError: the first record is damaged.
    """
    size = _embedding_size(names[0])
    if ids is not None:
        wanted = set(ids)
        names = [name for name in names if record_name(name) in wanted]
    chunks = [names[i : i + ROWS_PER_PART] for i in range(0, len(names), ROWS_PER_PART)]
    return Parts(path, "records", size, [RecordFiles(chunk, size, names[0]) for chunk in chunks])


def usual_size(names: Iterable[str]) -> int:
    """Returns the most common number of floats in the first valid records; 0 if none is valid."""
    sizes: Counter[int] = Counter()
    for name in names:
        try:
            sizes[_embedding_size(name)] += 1
        except UsageError:
            continue
        if sizes.total() == _FIRST_RECORDS:
            break
    return sizes.most_common(1)[0][0] if sizes else 0


def _embedding_size(name: str) -> int:
    try:
        return len(decode_record(storage.read_bytes(name)).embedding)
    except (BadRecord, OSError) as error:
        raise unusable(name, error) from error


@dataclass(frozen=True)
class RecordFiles:
    """A part: some records, in order."""

    names: Sequence[str]
    embedding_size: int
    first: str

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.names)

    @property
    def threads(self) -> int:
        """See `parts.Part`."""
        return 1 if storage.is_on_disk(self.first) else 2

    def dicom_ids(self) -> list[str]:
        """Returns the files' names without their extension."""
        return [record_name(name) for name in self.names]

    def read(self, out: np.ndarray) -> Names:
        """Reads all records into `out`; see `parts.Part`."""
        decoder = RecordDecoder(self.embedding_size)
        rows = row_bytes(out)
        image_ids = []
        for name, row, data in zip(self.names, rows, read_files(self.names), strict=True):
            try:
                if isinstance(data, OSError):
                    raise data
                image_ids.append(decoder.decode(data, row))
            except WrongSize as error:
                raise UsageError(
                    f"{name} has {error.size} floats, {self.first} has {self.embedding_size}: "
                    "these are embeddings of two models"
                ) from error
            except (BadRecord, OSError) as error:
                raise unusable(name, error) from error
        return Names(self.dicom_ids(), image_ids)


def unusable(name: str, error: Exception) -> UsageError:
    """Returns what to tell a person of a record that cannot be used."""
    if isinstance(error, PlaceUnavailable):
        raise PlaceLost(str(error)) from error
    if isinstance(error, OSError):
        return cannot_be_read(name, error)
    return UsageError(
        f"{name} is damaged: {error}; cxr-embed verify --repair removes it, the main job computes "
        "it again"
    )


def row_bytes(out: np.ndarray) -> Iterator[memoryview]:
    """Yields each row of a float32 matrix as its bytes, to be written to."""
    whole = out.reshape(-1).view(np.uint8).data
    length = 4 * out.shape[1]
    return (whole[start : start + length] for start in range(0, len(whole), length))


def read_files(names: Sequence[str]) -> Iterator[bytes | OSError]:
    """Yields each file's bytes, or why it cannot be read; local files one by one, others many.

    Raises:
        PlaceLost: the service does not answer any more.
    """
    if not names or storage.is_on_disk(names[0]):
        yield from map(_read_local, names)
        return
    for start in range(0, len(names), ROWS_PER_PART):
        yield from _download_all(names[start : start + ROWS_PER_PART])


def _download_all(names: Sequence[str]) -> Iterator[bytes | OSError]:
    in_order, one_by_one = storage.reading_order(names)
    with ThreadPoolExecutor(1 if one_by_one else _DOWNLOADS) as pool:
        found = pool.map(_download, in_order)
        if in_order == list(names):
            yield from found
            return
        by_name = dict(zip(in_order, found, strict=True))
    yield from (by_name[name] for name in names)


def _download(name: str) -> bytes | OSError:
    try:
        return storage.read_bytes(name)
    except PlaceUnavailable as error:  # it says nothing about this file, nor about the next ones
        raise PlaceLost(str(error)) from error
    except OSError as error:
        return error


def _read_local(name: str) -> bytes | OSError:
    # Three system calls and no objects in between: small files are read twice as fast.
    try:
        handle = os.open(name, os.O_RDONLY)
    except OSError as error:
        return error
    try:
        pieces = [os.read(handle, _AT_ONCE)]
        while len(pieces[-1]) == _AT_ONCE:
            pieces.append(os.read(handle, _AT_ONCE))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except OSError as error:
        return error
    finally:
        os.close(handle)
