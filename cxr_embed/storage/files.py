"""The interface of a storage place, and the types that all places share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, NamedTuple, Protocol

# Number of a file's first bytes that are checked: enough for the header of a radiograph.
START_BYTES = 64 << 10

# Receives a file's first bytes (`START_BYTES`, or the whole of a smaller file). Returns the maximum
# size in bytes to read, or raises to reject the file. It is called again if a download is retried.
Admit = Callable[[bytes], int]


class Entry(NamedTuple):
    """A file in a listing.

    Attributes:
        path: relative to the listed folder.
        size: in bytes.
        crc32c: CRC-32C in base64; empty for local files.
    """

    path: str
    size: int
    crc32c: str = ""


class StoredFile(NamedTuple):
    """The content of a file.

    Attributes:
        data: the bytes.
        crc32c: CRC-32C of the bytes, 8 lower-case hexadecimal digits.
    """

    data: bytes
    crc32c: str


class FileTooLarge(OSError):
    """A file that is larger than the reader's limit. It was not read completely.

    Attributes:
        path: the file.
        size: in bytes; None if unknown.
        limit: the maximum size in bytes.
    """

    def __init__(self, path: str, size: int | None, limit: int) -> None:
        self.path, self.size, self.limit = path, size, limit
        shown = "the file" if size is None else f"{size} bytes"
        super().__init__(f"{path}: {shown}, more than the {limit} bytes that an image can need")

    def __reduce__(self) -> tuple[type[FileTooLarge], tuple[str, int | None, int]]:
        return FileTooLarge, (self.path, self.size, self.limit)


class OtherContent(FileExistsError):
    """A file that should be new exists with other content, written by another run."""


class Place(Protocol):
    """A kind of storage, implemented by one module. Paths include the place's `scheme://`."""

    def check_name(self, path: str) -> str | None:
        """Returns why the path is not valid in this place, or None."""

    def list_files(self, folder: str) -> Iterator[Entry]:
        """Yields every file below a folder."""

    def list_paths(self, folder: str) -> Iterator[str]:
        """Yields the paths of every file below a folder, which may be faster."""

    def matches(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yields the files that a glob selects, see `places.matches`."""

    def exists(self, path: str) -> bool:
        """Whether a file exists."""

    def read_bytes(self, path: str) -> bytes:
        """Reads a whole file."""

    def read_file(self, path: str, admit: Admit | None) -> StoredFile:
        """Reads a file with a size limit, see `places.read_file`."""

    def write_whole(self, path: str, data: bytes, *, replace: bool) -> None:
        """Writes a file atomically."""

    def open_whole(self, path: str, *, replace: bool) -> AbstractContextManager[IO[bytes]]:
        """Opens a file that is written atomically."""

    def remove(self, path: str) -> None:
        """Removes a file; does nothing if it is missing."""

    def why_not_writable(self, folder: str) -> str | None:
        """Returns why files cannot be written below a folder, or None."""
