"""Reads any part of what a gzip file contains; reading on from the last part costs nothing extra.

A gzip file can only be decompressed from its start. This reader keeps copies of the decompressor's
state (40 KB each) at regular distances, so that a step back costs one distance and not all that was
read so far. Python's `gzip` starts again from the beginning, and libraries that keep an index
(indexed_gzip, rapidgzip) need a local file.
"""

from __future__ import annotations

import bisect
import threading
import zlib
from dataclasses import dataclass
from typing import Any

from cxr_embed.storage.range_file import RangeFile

_GZIP = zlib.MAX_WBITS | 16
_PIECE = 256 << 10

# The states: at most so many, at first at this distance, which doubles when there are too many.
_MOST_STATES = 256
_FIRST_DISTANCE = 1 << 20

# Data that is larger than this and than so many times its compressed size is no radiographs.
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 250


class DamagedGzip(OSError):
    """The compressed data is damaged, incomplete, or made to fill disks and memory."""


@dataclass
class _State:
    """A decompressor, and what it has consumed and given so far, in bytes."""

    given: int
    consumed: int
    inflater: Any


class GzipReader:
    """The decompressed contents of a gzip file.

    Args:
        path: the file, for messages.
        file: the compressed file.

    Attributes:
        lock: to be held for several reads in a row; each read takes it, too.
    """

    def __init__(self, path: str, file: RangeFile) -> None:
        self.lock = threading.RLock()
        self._path, self._file = path, file
        self._distance = _FIRST_DISTANCE
        self._states = [_State(0, 0, zlib.decompressobj(_GZIP))]
        self._restore(self._states[0])

    def read_range(self, start: int, length: int) -> bytes:
        """Returns a part of the contents, less only at their end.

        Raises:
            DamagedGzip: the contents cannot be decompressed up to there.
            OSError: the file cannot be read.
        """
        with self.lock:
            self._go_to(start)
            pieces = []
            while length and (piece := self._inflate(min(length, _PIECE))):
                pieces.append(piece)
                length -= len(piece)
            return b"".join(pieces)

    def read_to_end(self) -> None:
        """Decompresses what is left, which verifies the checksum at the end.

        Raises:
            DamagedGzip: as `read_range`.
        """
        with self.lock:
            while self._inflate(_PIECE):
                pass

    def _go_to(self, start: int) -> None:
        nearest = self._states[bisect.bisect(self._states, start, key=lambda s: s.given) - 1]
        if not nearest.given <= self._given <= start:
            self._restore(nearest)
        while self._given < start and self._inflate(min(start - self._given, _PIECE)):
            pass

    def _restore(self, state: _State) -> None:
        self._given, self._consumed = state.given, state.consumed
        self._inflater = state.inflater.copy()
        self._pending = b""

    def _inflate(self, most: int) -> bytes:
        """Returns the next bytes, at most `most`; none at the end."""
        self._keep_state()
        while True:
            # With nothing pending, the decompressor may still hold output.
            try:
                data: bytes = self._inflater.decompress(self._pending, most)
            except zlib.error as error:
                raise DamagedGzip(f"{self._path}: the compressed data is damaged") from error
            self._pending = self._inflater.unconsumed_tail
            if data:
                self._given += len(data)
                self._refuse_bomb()
                return data
            if self._inflater.eof:
                if not self._begin_next():
                    return b""
            elif not self._pending and not self._fetch():
                raise DamagedGzip(f"{self._path} ends too early")

    def _fetch(self) -> bool:
        self._file.seek(self._consumed)
        self._pending = self._file.read(_PIECE)
        self._consumed += len(self._pending)
        return bool(self._pending)

    def _begin_next(self) -> bool:
        """Continues with the next gzip stream of the file, as programs like pigz write them."""
        self._pending = self._inflater.unused_data.lstrip(b"\0")
        while len(self._pending) < 2:  # zeros may fill up the file's last block
            before = self._pending
            if not self._fetch():
                self._pending = before
                break
            self._pending = (before + self._pending).lstrip(b"\0")
        if not self._pending.startswith(b"\x1f\x8b"):
            return False
        self._inflater = zlib.decompressobj(_GZIP)
        return True

    def _keep_state(self) -> None:
        if self._given < self._states[-1].given + self._distance or self._inflater.eof:
            return
        consumed = self._consumed - len(self._pending)
        self._states.append(_State(self._given, consumed, self._inflater.copy()))
        if len(self._states) > _MOST_STATES:
            del self._states[1::2]
            self._distance *= 2

    def _refuse_bomb(self) -> None:
        if self._given > max(_BOMB_BYTES, _BOMB_RATIO * self._consumed):
            raise DamagedGzip(
                f"{self._path} looks like a decompression bomb: {self._consumed} bytes became "
                f"{self._given}"
            )
