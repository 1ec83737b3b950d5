"""What every place gives and takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, NamedTuple, Protocol

# What a file's first bytes are: enough for the header of a radiograph.
START_BYTES = 64 << 10

# Gets a file's first bytes (at most `START_BYTES`, all of a smaller file), returns the largest size
# in bytes that is worth reading, and may raise to refuse the file. It is called again where a
# broken answer is read again.
Admit = Callable[[bytes], int]


class Entry(NamedTuple):
    """A file as a listing shows it.

    Attributes:
        path: below the listed folder.
        size: in bytes.
        crc32c: its CRC-32C in base64, which buckets know and disks do not.
    """

    path: str
    size: int
    crc32c: str = ""


class StoredFile(NamedTuple):
    """A file that was read.

    Attributes:
        data: its bytes.
        crc32c: their CRC-32C, 8 lower-case hexadecimal digits.
    """

    data: bytes
    crc32c: str


class FileTooLarge(OSError):
    """A file that is larger than whoever reads it has a use for. It was not read whole.

    Attributes:
        path: the file.
        size: in bytes; None where only reading it whole would tell.
        limit: the largest size that would have been read, in bytes.
    """

    def __init__(self, path: str, size: int | None, limit: int) -> None:
        self.path, self.size, self.limit = path, size, limit
        shown = "the file" if size is None else f"{size} bytes"
        super().__init__(f"{path}: {shown}, more than the {limit} bytes that an image can need")

    def __reduce__(self) -> tuple[type[FileTooLarge], tuple[str, int | None, int]]:
        return FileTooLarge, (self.path, self.size, self.limit)


class OtherContent(FileExistsError):
    """A file that was to be new holds other bytes: another run wrote them."""


class Place(Protocol):
    """A kind of place: one module for each. Paths are whole, with the place's `scheme://`."""

    def check_name(self, path: str) -> str | None:
        """Returns why no path can begin like this one, or None."""

    def list_files(self, folder: str) -> Iterator[Entry]:
        """Yields every file below a folder."""

    def list_paths(self, folder: str) -> Iterator[str]:
        """Yields their paths only, which may be faster."""

    def matches(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yields files that a glob leads to, see `places.matches`."""

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def read_bytes(self, path: str) -> bytes:
        """Reads a whole file."""

    def read_file(self, path: str, admit: Admit | None) -> StoredFile:
        """Reads a file that may be too large, see `places.read_file`."""

    def write_whole(self, path: str, data: bytes, *, replace: bool) -> None:
        """Writes a file that appears whole or not at all."""

    def open_whole(self, path: str, *, replace: bool) -> AbstractContextManager[IO[bytes]]:
        """Opens a file that appears whole or not at all."""

    def remove(self, path: str) -> None:
        """Removes one file; one that is missing is fine."""

    def why_not_writable(self, folder: str) -> str | None:
        """Returns why no file can be written below a folder, or None."""
