"""What all services that store objects in buckets have in common.

A read is one request, a write is one request, and a listing needs one request per page of names.
A service's module contains only its requests and the meaning of its errors, see `ObjectStore`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from cxr_embed.errors import one_line
from cxr_embed.storage.arriving import Arriving, ArrivingInFile, Refused, crc32c_of, md5_of
from cxr_embed.storage.files import Admit, Entry, OtherContent, Place, StoredFile
from cxr_embed.storage.globs import Glob, fixed_folder
from cxr_embed.storage.retries import Corrupt, gave_up, retried

# Maximum number of uploads that fail on an existing object which is then found to be removed.
_RACES = 8

_Result = TypeVar("_Result")


class Object(NamedTuple):
    """The address of an object.

    Attributes:
        bucket: the bucket's name.
        name: the object's name, not empty.
        path: both, with the place's `scheme://`.
    """

    bucket: str
    name: str
    path: str


class Head(NamedTuple):
    """What a service knows of an object without its content.

    Attributes:
        size: in bytes.
        tag: see `Entry.tag`.
        crc32c: in base64; empty if unknown.
        md5: in base64; empty if unknown.
    """

    size: int
    tag: str
    crc32c: str = ""
    md5: str = ""

    def is_of(self, file: IO[bytes]) -> bool | None:
        """Whether an open file has the object's content; None if the service has no checksum."""
        if file.seek(0, 2) != self.size:
            return False
        if self.crc32c:
            return crc32c_of(file) == self.crc32c
        if self.md5:
            return md5_of(file) == self.md5
        return None


class ObjectStore(Place):
    """A service that stores objects in buckets.

    A service's class writes the methods below `list_page`: each makes one request, once. Retries,
    globs, limits, races and the words of errors are added here.

    Attributes:
        scheme: the part of an address before `://`.
    """

    scheme: str

    @abstractmethod
    def list_page(self, bucket: str, prefix: str, token: str) -> tuple[list[Entry], str]:
        """Returns one page of the objects whose names start with a prefix, sorted by name.

        Args:
            bucket: the bucket.
            prefix: of the names.
            token: empty for the first page.

        Returns:
            The objects, and the token of the next page, which is empty after the last page.
        """

    @abstractmethod
    def head(self, at: Object) -> Head | None:
        """Returns what the service knows of an object; None if it is missing."""

    @abstractmethod
    def get(self, at: Object, into: Arriving) -> None:
        """Writes an object, or the part `into.range_header`, into `into`.

        Raises:
            Corrupt: the bytes do not match the service's checksum.
            Refused: as `into` raises it.
        """

    @abstractmethod
    def put(self, at: Object, file: IO[bytes], size: int, *, new: bool) -> bool:
        """Uploads an object, which appears as a whole.

        Args:
            at: the object.
            file: the content; its position is to be set.
            size: of the content in bytes.
            new: the request has the precondition that the object does not exist.

        Returns:
            False if the object exists, with `new`.
        """

    @abstractmethod
    def delete(self, at: Object) -> None:
        """Removes an object; a missing one may be an error."""

    @abstractmethod
    def is_passing(self, error: BaseException) -> bool:
        """Whether an exception of a request may not be raised by the next one."""

    @abstractmethod
    def as_oserror(self, path: str, error: Exception) -> OSError | None:
        """Returns the error of a local file that an exception corresponds to.

        It is a FileNotFoundError, a PermissionError, PlaceUnavailable or an OSError, and begins
        with the path. Exceptions that are not of the service are None.
        """

    @abstractmethod
    def why(self, error: BaseException | None) -> str:
        """Returns an exception's text in one line, without credentials."""

    # What follows is what `Place` asks for.

    def list_files(self, folder: str) -> Iterator[Entry]:
        """Yields the files below a prefix, sorted by name; one page at a time is in memory."""
        bucket, name = self.split(folder)
        prefix = name.rstrip("/") + "/" if name else ""
        for entry in self._list(bucket, prefix, folder):
            yield entry._replace(path=entry.path[len(prefix) :])

    def matches(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yields the files that a glob selects, sorted; see `places.matches`."""
        bucket, rest = self.split(pattern)
        base = fixed_folder(rest)
        glob = Glob(rest[len(base) :])
        start = re.split(r"[*?\[]", rest, maxsplit=1)[0]
        for entry in self._list(bucket, start, pattern):
            below = glob.below(entry.path[len(base) :])
            if below is not None:
                yield f"{self.scheme}://{bucket}/{entry.path}", below

    def _list(self, bucket: str, prefix: str, shown: str) -> Iterator[Entry]:
        """Yields the objects whose names start with `prefix`; errors name `shown`."""
        token = ""
        while True:
            page, token = self._call(
                shown, functools.partial(self.list_page, bucket, prefix, token)
            )
            # Consoles create empty objects as "folders".
            yield from (entry for entry in page if not entry.path.endswith("/"))
            if not token:
                return

    def exists(self, path: str) -> bool:
        """Whether an object exists."""
        return self._head(self.object_of(path)) is not None

    def size(self, path: str) -> int:
        """Returns an object's size in bytes."""
        return self._existing(self.object_of(path)).size

    def state(self, path: str) -> str:
        """Returns an object's size and tag."""
        head = self._existing(self.object_of(path))
        return f"{head.size}/{head.tag}"

    def _head(self, at: Object) -> Head | None:
        return self._call(at.path, lambda: self.head(at))

    def _existing(self, at: Object) -> Head:
        found = self._head(at)
        if found is None:
            raise FileNotFoundError(f"{at.path} does not exist")
        return found

    def read_file(self, path: str, admit: Admit | None = None) -> StoredFile:
        """Reads an object in one request and verifies its checksum; see `places.read_file`."""
        at = self.object_of(path)

        def attempt() -> StoredFile:
            arriving = Arriving(path, admit)
            self.get(at, arriving)
            return arriving.finish()

        try:
            return self._call(path, attempt)
        except Refused as refused:  # an exception of `admit` is not an error of the service
            raise refused.why from None

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Reads a part of an object in one request; see `places.read_range`."""
        at = self.object_of(path)

        def attempt() -> bytes:
            arriving = Arriving(path, first=start, length=length)
            self.get(at, arriving)
            return arriving.finish().data

        return self._call(path, attempt)

    def download(self, path: str, target: Path, tag: str) -> None:
        """Copies an object of any size to a local file; see `places.download`."""
        at = self.object_of(path)
        head = self._existing(at)
        if tag and head.tag != tag:
            raise OSError(f"{path} has changed since it was listed")
        with target.open("w+b") as file:

            def attempt() -> None:
                into = ArrivingInFile(path, file)
                if into.first < head.size:
                    self.get(at, into)
                if head.is_of(file) is False:
                    if file.seek(0, 2) >= head.size:
                        file.truncate(0)
                    raise Corrupt("the content does not match its checksum")

            self._call(path, attempt)

    def write_whole(self, path: str, data: bytes, *, replace: bool = False) -> None:
        """Writes an object in one upload; see `places.write_whole`.

        Without `replace`, the upload has the precondition that the object does not exist. If an
        object with the same bytes exists, the write has succeeded: the response of this upload was
        lost, or another worker has written the same image. A record is therefore never torn or
        silently overwritten, and a late retry of a dead worker cannot undo a newer write.
        """
        self._write(path, io.BytesIO(data), replace)

    @contextlib.contextmanager
    def open_whole(self, path: str, *, replace: bool = False) -> Iterator[IO[bytes]]:
        """Opens a temporary local file that is uploaded at the end; see `places.open_whole`."""
        with tempfile.TemporaryFile() as file:
            yield file
            self._write(path, file, replace)

    def _write(self, path: str, file: IO[bytes], replace: bool) -> None:
        at = self.object_of(path)
        size = file.seek(0, 2)
        for _ in range(_RACES):
            if self._call(path, lambda: self.put(at, file, size, new=not replace)):
                return
            existing = self._head(at)
            if existing is None:  # removed in the meantime
                continue
            if self._is_same(at, existing, file):
                return
            raise OtherContent(f"{path} exists with other content: another run wrote it")
        raise OSError(f"{path}: other processes keep writing and removing it")

    def _is_same(self, at: Object, existing: Head, file: IO[bytes]) -> bool:
        """Whether an object has a file's content; it is read if the service has no checksum."""
        is_same = existing.is_of(file)
        if is_same is None:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, "copy")
                self.download(at.path, copy, "")
                with copy.open("rb") as other:
                    is_same = crc32c_of(other) == crc32c_of(file)
        return is_same

    def remove(self, path: str) -> None:
        """Removes an object; does nothing if it is missing."""
        at = self.object_of(path)
        with contextlib.suppress(FileNotFoundError):
            self._call(path, lambda: self.delete(at))

    def why_not_writable(self, folder: str) -> str | None:
        """Lists one page. A missing write permission is found only at the first write."""
        try:
            next(self.list_files(folder), None)
        except OSError as error:
            return str(error)
        return None

    def split(self, path: str) -> tuple[str, str]:
        """Returns the bucket and the object's name, which may be empty.

        Raises:
            OSError: the bucket's name is invalid; `FileNotFoundError` if it is missing.
        """
        if why := self.check_name(path):
            raise (FileNotFoundError if "names no" in why else OSError)(f"{path}: {why}")
        bucket, _, name = path.removeprefix(f"{self.scheme}://").partition("/")
        return bucket, name

    def object_of(self, path: str) -> Object:
        """Returns the address of an object.

        Raises:
            OSError: as `split`, or the path is a bucket.
        """
        bucket, name = self.split(path)
        if not name:
            raise IsADirectoryError(f"{path} is a bucket, not an object")
        return Object(bucket, name, path)

    def _call(self, path: str, request: Callable[[], _Result]) -> _Result:
        """Makes a request until it succeeds or the retry time is over.

        Raises:
            OSError: that of `as_oserror`; PlaceUnavailable if the retry time is over.
        """
        from google.api_core.exceptions import RetryError

        def is_passing(error: BaseException) -> bool:
            return isinstance(error, Corrupt) or self.is_passing(error)

        try:
            return retried(request, is_passing)
        except RetryError as error:
            cause = error.cause
            why = str(cause) if isinstance(cause, Corrupt) else self.why(cause)
            raise gave_up(path, cause, why) from error
        except (Corrupt, UnicodeError) as error:  # UnicodeError: a name that is not valid text
            raise OSError(one_line(f"{path}: {error}")) from error
        except Exception as error:
            known = self.as_oserror(path, error)
            if known is None:
                raise
            raise known from error
