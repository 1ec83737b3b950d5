"""TFRecord shards: the same records as one file each, end to end in larger files."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cxr_embed.elements import dicom_id_of
from cxr_embed.embeddings.parts import Names, Parts
from cxr_embed.embeddings.record_decoder import RecordDecoder
from cxr_embed.embeddings.record_files import row_bytes
from cxr_embed.errors import UsageError
from cxr_embed.records import BadRecord, decode_image_id, decode_record, locate_features

ROWS_PER_PART = 1024
_OVERHEAD = 16


def shard_parts(path: str, files: Sequence[str]) -> Parts:
    """Takes TFRecord shards apart into runs of records.

    Raises:
        UsageError: a shard is damaged or empty.
    """
    parts: list[Records] = []
    for file in files:
        frames = list(frames_of(file))
        parts += [
            Records(file, frames[i : i + ROWS_PER_PART])
            for i in range(0, len(frames), ROWS_PER_PART)
        ]
    if not parts:
        raise UsageError(f"{path} holds no records")
    first = parts[0]
    try:
        size = len(decode_record(next(first.framed())).embedding)
    except BadRecord as error:
        raise UsageError(f"{first.file} is damaged: {error}") from error
    return Parts(path, "tfrecord", size, parts)


def frames_of(file: str) -> Iterator[tuple[int, int]]:
    """Yields where each frame of a file begins and ends; only the lengths are looked at.

    Raises:
        UsageError: the file ends within a frame.
    """
    with Path(file).open("rb") as opened:
        size = opened.seek(0, 2)
        if not size:
            return
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = 0
            while start < size:
                length = struct.unpack_from("<Q", data, start)[0] if start + 8 <= size else size
                end = start + length + _OVERHEAD
                if end > size:
                    raise UsageError(f"{file} is damaged: it ends within a record")
                yield start, end
                start = end


@dataclass(frozen=True)
class Records:
    """A part: some records of one shard, by where their frames lie."""

    threads: ClassVar[int] = 1
    file: str
    frames: Sequence[tuple[int, int]]

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.frames)

    def dicom_ids(self) -> list[str]:
        """Returns the ids that follow from the image ids."""
        found = []
        for framed in self.framed():
            names, _ = locate_features(framed[12:-4])
            found.append(dicom_id_of(decode_image_id(framed[12:-4][slice(*names[0])])))
        return found

    def read(self, out: np.ndarray) -> Names:
        """Reads all records into `out`; see `parts.Part`."""
        decoder = RecordDecoder(out.shape[1])
        try:
            images = [
                decoder.decode(framed, row)
                for framed, row in zip(self.framed(), row_bytes(out), strict=True)
            ]
        except BadRecord as error:
            raise UsageError(f"{self.file} is damaged: {error}") from error
        return Names([dicom_id_of(image) for image in images], images)

    def framed(self) -> Iterator[bytes]:
        """Yields each record with its frame."""
        with Path(self.file).open("rb", buffering=0) as file:
            file.seek(self.frames[0][0])
            data = file.read(self.frames[-1][1] - self.frames[0][0])
        first = self.frames[0][0]
        return (data[start - first : end - first] for start, end in self.frames)
