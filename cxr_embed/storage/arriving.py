"""What receives an object while it arrives: it can end the download and bounds its memory."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import IO

import google_crc32c

from cxr_embed.storage.files import START_BYTES, Admit, FileTooLarge, StoredFile

# Block size for the checksum of a file.
_PIECE = 1 << 20


class Refused(Exception):
    """Passes the exception that ends a download through a service's client unchanged."""

    def __init__(self, why: BaseException) -> None:
        self.why = why
        super().__init__(str(why))


class Arriving:
    """Receives an object, or a part of it, piece by piece.

    A service's client sets `announced_size` before the first piece.

    Args:
        path: the object.
        admit: see `files.Admit`.
        first: number of bytes before the wanted part.
        length: of the wanted part in bytes; None is all to the end.

    Attributes:
        announced_size: returns the object's size in bytes, or None if the response has none.
        crc32c: of the object, 8 hexadecimal digits, if the service sent it and it was verified.
    """

    def __init__(
        self, path: str, admit: Admit | None = None, first: int = 0, length: int | None = None
    ) -> None:
        self._path, self._admit = path, admit
        self.first, self.length = first, length
        self.announced_size: Callable[[], int | None] = lambda: None
        self.crc32c: str | None = None
        self._limit: int | None = None
        self._content = io.BytesIO()

    @property
    def is_whole(self) -> bool:
        """Whether the whole object is wanted."""
        return self.first == 0 and self.length is None

    @property
    def range_header(self) -> str | None:
        """The HTTP header `Range` of the request, or None for the whole object."""
        if self.is_whole:
            return None
        last = "" if self.length is None else self.first + self.length - 1
        return f"bytes={self.first}-{last}"

    def write(self, piece: bytes) -> int:
        """Adds the next piece.

        Raises:
            Refused: the object is too large or was rejected.
        """
        size = self._content.tell() + len(piece)
        if self._limit is not None and size > self._limit:
            raise Refused(FileTooLarge(self._path, self.announced_size(), self._limit))
        self._content.write(piece)
        if self._admit is not None and self._limit is None and size >= START_BYTES:
            self._judge()
        return len(piece)

    def seek(self, offset: int) -> int:
        """Restarts the content; Google's client calls it if it decompresses the object."""
        self._content.truncate(offset)
        return self._content.seek(offset)

    def _judge(self) -> None:
        """Calls `admit` on the first bytes and checks the size in the response's headers."""
        assert self._admit is not None
        try:
            self._limit = self._admit(self._content.getvalue()[:START_BYTES])
        except BaseException as error:
            raise Refused(error) from error
        size = self.announced_size()
        if (size or self._content.tell()) > self._limit:
            raise Refused(FileTooLarge(self._path, size, self._limit))

    def finish(self) -> StoredFile:
        """Returns the content, whose checksum the service's client has verified."""
        if self._admit is not None and self._limit is None:
            self._judge()
        data = self._content.getvalue()  # shares the buffer, no copy
        return StoredFile(data, self.crc32c) if self.crc32c else StoredFile.of(data)


class ArrivingInFile(Arriving):
    """Receives an object in a local file; a broken download continues at the file's end.

    Args:
        path: the object.
        file: the local file, open for writing and reading.
    """

    def __init__(self, path: str, file: IO[bytes]) -> None:
        super().__init__(path, first=file.seek(0, 2))
        self._file = file

    def write(self, piece: bytes) -> int:
        """Adds the next piece."""
        return self._file.write(piece)

    def seek(self, offset: int) -> int:
        """Restarts the content."""
        self._file.truncate(offset)
        return self._file.seek(offset)


def crc32c_of(file: IO[bytes]) -> str:
    """Returns an open file's CRC-32C in base64, as services send it."""
    file.seek(0)
    found = google_crc32c.Checksum()
    for _ in found.consume(file, _PIECE):
        pass
    return base64.b64encode(found.digest()).decode()


def md5_of(file: IO[bytes]) -> str:
    """Returns an open file's MD5 in base64, as services send it."""
    import hashlib

    file.seek(0)
    found = hashlib.md5(usedforsecurity=False)
    while piece := file.read(_PIECE):
        found.update(piece)
    return base64.b64encode(found.digest()).decode()
