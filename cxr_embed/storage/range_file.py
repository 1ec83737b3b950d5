"""A file that is read in ranges, as the binary file that `zipfile` and `tarfile` take."""

from __future__ import annotations

import io
from collections.abc import Callable

from cxr_embed.errors import one_line

# Bytes that one request fetches at least: the headers of small members, or a small zip's directory.
_BLOCK = 256 << 10

# A larger part is not read at once. The directory of a zip with a million members is about as long.
_LARGEST_READ = 256 << 20


class RangeFile(io.RawIOBase):
    """A read-only, seekable file; one block of it is in memory.

    Args:
        path: the file, for messages.
        read_range: returns so many bytes from an offset, fewer at the file's end.
        size: of the file in bytes; None if unknown, then nothing can be read from the end.
        block: bytes to fetch at least.
        largest: reads of more bytes are an error, since a hostile header may ask for any number.
    """

    def __init__(
        self,
        path: str,
        read_range: Callable[[int, int], bytes],
        size: int | None,
        *,
        block: int = _BLOCK,
        largest: int = _LARGEST_READ,
    ) -> None:
        super().__init__()
        self._path, self._read_range, self.size = path, read_range, size
        self._block, self._largest = block, largest
        self._at = 0
        self._start, self._held = 0, b""

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def readable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position; nothing is read."""
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            if self.size is None:
                raise io.UnsupportedOperation("the size is unknown")
            offset += self.size
        if offset < 0:
            raise ValueError("a position before the start")
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """Reads from the position; `OSError` if a part is larger than allowed."""
        if size is None or size < 0:
            if self.size is None:
                raise io.UnsupportedOperation("the size is unknown")
            size = max(self.size - self._at, 0)
        if size > self._largest:
            raise OSError(one_line(f"{self._path}: a header of {size} bytes"))
        if not self._start <= self._at or self._at + size > self._start + len(self._held):
            self._fetch(size)
        begin = self._at - self._start
        data = self._held[begin : begin + size]
        self._at += len(data)
        return data

    def _fetch(self, size: int) -> None:
        start, length = self._at, max(size, self._block)
        if self.size is not None and start + length > self.size:
            # A zip has its directory at the end. What lies before is read next.
            start = min(start, max(self.size - length, 0))
            length = max(self.size - start, 0)
        # What is there already is not read again: a step back is slow in compressed data.
        kept = self._held[start - self._start :] if start >= self._start else b""
        more = length - len(kept)
        if more > 0:
            kept += self._read_range(start + len(kept), more)
        self._start, self._held = start, kept
