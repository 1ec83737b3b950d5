"""Archives as places: lists and reads the members of .zip, .tar, .tar.gz and .tgz files.

An archive may lie in any place that can be read in ranges. Nothing is unpacked to a disk. Its kind
is that of its first bytes, not of its name.
"""

from __future__ import annotations

import contextlib
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from cxr_embed import members
from cxr_embed.errors import PlaceUnavailable, one_line
from cxr_embed.storage import tar_archive, zip_archive
from cxr_embed.storage.archive_members import Member, raise_if_refused
from cxr_embed.storage.files import Admit, Entry, Place, StoredFile
from cxr_embed.storage.gzip_reader import GzipReader
from cxr_embed.storage.range_file import RangeFile

# Bytes of a compressed archive that one request fetches.
_GZIP_BLOCK = 4 << 20

# Compressed archives that are kept open, and lists that are kept, per process.
_OPEN, _LISTED = 4, 8

_Value = TypeVar("_Value")


class Archives(Place):
    """The members of archives.

    Args:
        place_of: returns the place of an archive.
    """

    def __init__(self, place_of: Callable[[str], Place]) -> None:
        self._place_of = place_of
        self._readers: _Latest[GzipReader] = _Latest(_OPEN)
        self._lists: _Latest[dict[str, str] | OSError] = _Latest(_LISTED)

    def holds(self, path: str) -> bool:
        """Whether a path is the address of a member, not of a file in a folder named `x.zip!`."""
        found = members.split(path)
        return found is not None and ("://" in path or not Path(f"{found[0]}!").is_dir())

    def missing_extra(self) -> str | None:
        """Returns None: the extra of the archive's place is checked there."""
        return None

    def check_name(self, path: str) -> str | None:
        """Returns why the archive's path is not valid in its place, or None."""
        archive, _ = _split(path)
        return self._place_of(archive).check_name(archive)

    def list_members(self, archive: str) -> Iterator[Member]:
        """Yields the members of an archive in its order; a tar archive is read as it is listed.

        Raises:
            OSError: the archive cannot be read, or is damaged so that its members are unknown.
        """
        self._lists.forget(archive)
        yield from self._list_now(archive)

    def _list_now(self, archive: str) -> Iterator[Member]:
        self._readers.forget(archive)
        with _named(archive):
            file = self._open(archive)
            start = file.read(4)
            file.seek(0)
            if start.startswith(zip_archive.MAGIC):
                yield from zip_archive.list_members(file)
            elif start.startswith(tar_archive.GZIP_MAGIC):
                reader = self._readers.get(archive, lambda: self._reader(archive))
                plain = _as_file(archive, reader)
                yield from tar_archive.list_members(plain, tar_archive.COMPRESSED)
                reader.read_to_end()
            elif _is_zip_with_prefix(archive, file):
                yield from zip_archive.list_members(file)
            else:
                headers = RangeFile(
                    archive, self._read_range(archive), file.size,
                    largest=tar_archive.LONGEST_HEADER,
                )  # fmt: skip
                yield from tar_archive.list_members(headers, tar_archive.PLAIN)

    def _open(self, archive: str, block: int | None = None) -> RangeFile:
        size = self._place_of(archive).size(archive)
        if not size:
            raise OSError(f"{archive} is empty")
        if block is None:
            return RangeFile(archive, self._read_range(archive), size)
        return RangeFile(archive, self._read_range(archive), size, block=block)

    def _read_range(self, archive: str) -> Callable[[int, int], bytes]:
        place = self._place_of(archive)
        return lambda start, length: place.read_range(archive, start, length) if length else b""

    def _reader(self, archive: str) -> GzipReader:
        return GzipReader(archive, self._open(archive, _GZIP_BLOCK))

    def list_files(self, folder: str) -> Iterator[Entry]:
        """Yields the members below a folder of an archive; their sizes are not known."""
        archive, inside = _split(folder)
        prefix = f"{inside.rstrip('/')}/" if inside else ""
        for member in self.list_members(archive):
            if member.name.startswith(prefix):
                yield Entry(member.name[len(prefix) :], 0)

    def exists(self, path: str) -> bool:
        """Whether a member exists."""
        try:
            self._location(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, path: str) -> int:
        """Returns the size of a member, which is read."""
        return len(self.read_bytes(path))

    def state(self, path: str) -> str:
        """Returns the state of the archive."""
        archive, _ = _split(path)
        return self._place_of(archive).state(archive)

    def read_file(self, path: str, admit: Admit | None = None) -> StoredFile:
        """Reads a member by its address; the archive is listed if it was not listed lately."""
        return self.read_member(path, self._location(path), admit)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Reads a part of a member, which is read completely."""
        return self.read_bytes(path)[start : start + length]

    def read_member(self, path: str, location: str, admit: Admit | None = None) -> StoredFile:
        """Reads a member.

        Args:
            path: its address.
            location: `Member.location`.
            admit: see `files.Admit`.

        Raises:
            BadMember: the member is refused or damaged.
            FileTooLarge: it is larger than `admit` allows.
            OSError: the archive cannot be read.
        """
        raise_if_refused(path, location)
        archive, name = _split(path)
        kind = location.partition(":")[0]
        if kind == zip_archive.KIND:
            read = self._read_range(archive)
            data = zip_archive.read_member(read, path, name, location, admit)
        elif kind == tar_archive.PLAIN:
            data = tar_archive.read_member(self._read_range(archive), path, location, admit)
        else:
            reader = self._readers.get(archive, lambda: self._reader(archive))
            with reader.lock:  # the parts of a member are read one after the other
                data = tar_archive.read_member(reader.read_range, path, location, admit)
        return StoredFile.of(data)

    def reading_order(self, paths: Sequence[str]) -> tuple[list[str], bool]:
        """Returns members in the order of their archive, see `places.reading_order`."""
        locations: dict[str, str] = {}
        for path in paths:
            with contextlib.suppress(OSError):  # reading it raises the same
                locations[path] = self._location(path)
        in_order = sorted(paths, key=lambda path: reading_order(path, locations.get(path, "")))
        kinds = {location.partition(":")[0] for location in locations.values()}
        return in_order, tar_archive.COMPRESSED in kinds

    def _location(self, path: str) -> str:
        archive, name = _split(path)
        found = self._lists.get(archive, lambda: self._list(archive))
        if isinstance(found, OSError):
            raise found
        if name not in found:
            raise FileNotFoundError(f"{path}: the archive has no such member")
        return found[name]

    def _list(self, archive: str) -> dict[str, str] | OSError:
        """Returns the locations by name; a damaged archive is read once, not once a member."""
        try:
            return dict(self._list_now(archive))
        except PlaceUnavailable:
            raise
        except OSError as error:
            return error


def reading_order(path: str, location: str) -> tuple[str, int]:
    """Returns a sort key: images by path, the members of an archive as they lie in it."""
    _, _, rest = location.partition(":")
    offset = rest.partition(":")[0]
    return (_split(path)[0], int(offset)) if offset.isdigit() else (path, 0)


def _split(path: str) -> tuple[str, str]:
    found = members.split(path)
    assert found is not None, path
    return found


def _as_file(archive: str, reader: GzipReader) -> RangeFile:
    return RangeFile(archive, reader.read_range, None, largest=tar_archive.LONGEST_HEADER)


def _is_zip_with_prefix(archive: str, file: RangeFile) -> bool:
    """Whether a file that does not begin as a zip ends as one, as self-extracting ones do."""
    return archive.lower().endswith(".zip") and zipfile.is_zipfile(file)


@contextlib.contextmanager
def _named(archive: str) -> Iterator[None]:
    """Raises what a damaged archive raises as an OSError that names it."""
    try:
        yield
    except (PlaceUnavailable, MemoryError):
        raise
    except OSError as error:
        text = error.strerror or str(error)
        if archive in text or error.filename:
            raise
        raise OSError(f"{archive}: {text}") from error
    except Exception as error:  # zipfile and tarfile raise many kinds for damaged headers
        raise OSError(f"{archive} cannot be read as an archive: {one_line(error)}") from error


class _Latest(Generic[_Value]):
    """The latest values by archive; a value is made once, also with several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[str, _Value] = OrderedDict()

    def get(self, archive: str, make: Callable[[], _Value]) -> _Value:
        with self._lock:
            if archive not in self._values:
                self._values[archive] = make()
                while len(self._values) > self._most:
                    self._values.popitem(last=False)
            self._values.move_to_end(archive)
            return self._values[archive]

    def forget(self, archive: str) -> None:
        with self._lock:
            self._values.pop(archive, None)
