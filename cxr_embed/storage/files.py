"""The interface of a storage place, and the types that all places share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import google_crc32c

from cxr_embed.storage.globs import Glob, fixed_folder

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
        tag: changes if the content does: a checksum or an entity tag; empty for local files.
    """

    path: str
    size: int
    tag: str = ""


class StoredFile(NamedTuple):
    """The content of a file.

    Attributes:
        data: the bytes.
        crc32c: CRC-32C of the bytes, 8 lower-case hexadecimal digits.
    """

    data: bytes
    crc32c: str

    @classmethod
    def of(cls, data: bytes) -> StoredFile:
        """Returns a content with its checksum."""
        return cls(data, f"{google_crc32c.value(data):08x}")


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


class BadMember(OSError):
    """A member of an archive that cannot be read as an image, while others can.

    Attributes:
        path: the member's address.
        reason: a key of `cxr_embed.outcomes.FAILURE_REASONS`.
        detail: one line.
    """

    def __init__(self, path: str, reason: str, detail: str) -> None:
        self.path, self.reason, self.detail = path, reason, detail
        super().__init__(f"{path}: {reason}: {detail}")

    def __reduce__(self) -> tuple[type[BadMember], tuple[str, str, str]]:
        return BadMember, (self.path, self.reason, self.detail)


class OtherContent(FileExistsError):
    """A file that should be new exists with other content, written by another run."""


class Place(Protocol):
    """A kind of storage. A path includes the place's `scheme://`, except in listings.

    A class that inherits from it and writes `check_name`, `list_files`, `exists`, `size`,
    `read_file` and `read_range` is a place that can be read. With `write_whole`, `open_whole`,
    `remove` and `why_not_writable` it can be written, too. Everything else follows from these.

    Attributes:
        has_ports: whether an address may have a port, as that of a server does.
        only_images: whether there can be no other files than images.
    """

    has_ports: bool = False
    only_images: bool = False

    def missing_extra(self) -> str | None:
        """Returns the extra of this package that has to be installed first, or None."""
        return None

    def check_name(self, path: str) -> str | None:
        """Returns why the path is not valid in this place, or None."""

    def list_files(self, folder: str) -> Iterator[Entry]:
        """Yields every file below a folder, sorted by path; nothing if it is missing."""

    def list_paths(self, folder: str) -> Iterator[str]:
        """Yields the paths of every file below a folder, which may be faster."""
        return (entry.path for entry in self.list_files(folder))

    def matches(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yields the files that a glob selects, see `places.matches`."""
        base = fixed_folder(pattern)
        glob = Glob(pattern[len(base) :])
        for path in self.list_paths(base):
            below = glob.below(path)
            if below is not None:
                yield f"{base}{path}", below

    def exists(self, path: str) -> bool:
        """Whether a file exists."""

    def size(self, path: str) -> int:
        """Returns a file's size in bytes."""

    def state(self, path: str) -> str:
        """Returns a text that changes if the file does, see `places.state`."""
        return str(self.size(path))

    def read_bytes(self, path: str) -> bytes:
        """Reads a whole file."""
        return self.read_file(path, None).data

    def read_file(self, path: str, admit: Admit | None) -> StoredFile:
        """Reads a file with a size limit, see `places.read_file`."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Reads a part of a file, see `places.read_range`."""

    def download(self, path: str, target: Path, tag: str) -> None:
        """Copies a file to a local one, see `places.download`; here through memory."""
        del tag
        target.write_bytes(self.read_bytes(path))

    def write_whole(self, path: str, data: bytes, *, replace: bool) -> None:
        """Writes a file atomically."""
        raise OSError(f"{path} can be read only")

    def open_whole(self, path: str, *, replace: bool) -> AbstractContextManager[IO[bytes]]:
        """Opens a file that is written atomically."""
        raise OSError(f"{path} can be read only")

    def remove(self, path: str) -> None:
        """Removes a file; does nothing if it is missing."""
        raise OSError(f"{path} can be read only")

    def why_not_writable(self, folder: str) -> str | None:
        """Returns why files cannot be written below a folder, or None."""
        return f"{folder} can be read only"
