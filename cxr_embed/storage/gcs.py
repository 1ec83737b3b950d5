"""Reads, writes and lists files in gs:// buckets.

A read is one request, a write is one request, and a listing needs one request per 1,000 names. The
client's exceptions are raised as the OSError of a local file, with the path in the message; see
`gcs_client.as_oserror`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import google_crc32c

from cxr_embed.storage.files import (
    START_BYTES,
    Admit,
    Entry,
    FileTooLarge,
    OtherContent,
    StoredFile,
)
from cxr_embed.storage.gcs_client import (
    BILLING_PROJECT_VARIABLE,
    RETRY_SECONDS_VARIABLE,
    TIMEOUT_SECONDS,
    Corrupt,
    GcsSettings,
    as_oserror,
    client,
    configure,
    last_headers,
    retried,
    retry,
    settings,
)
from cxr_embed.storage.globs import Glob, fixed_folder

__all__ = [
    "BILLING_PROJECT_VARIABLE", "RETRY_SECONDS_VARIABLE", "GcsSettings", "check_name", "configure",
    "download", "exists", "list_files", "list_paths", "matches", "open_whole", "read_bytes",
    "read_file", "remove", "settings", "why_not_writable", "write_whole",
]  # fmt: skip

_PREFIX = "gs://"

# https://cloud.google.com/storage/docs/buckets#naming without the rules that only the service can
# check: a bucket whose name breaks one of those does not exist.
_BUCKET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,220}[a-z0-9])?")

# Maximum number of uploads that fail on an existing object which is then found to be removed.
_RACES = 8

# Block size for the checksum of a file.
_PIECE = 1 << 20


def check_name(path: str) -> str | None:
    """Returns why a path cannot name a bucket, or None."""
    bucket = path.removeprefix(_PREFIX).partition("/")[0]
    if not bucket:
        return "names no bucket"
    if not _BUCKET_NAME.fullmatch(bucket):
        return (
            "no bucket can have this name: it has only lower-case letters, digits, dashes, "
            "underscores and dots, and starts and ends with a letter or digit"
        )
    return None


def list_files(folder: str) -> Iterator[Entry]:
    """Yields the files below a prefix, sorted by name; one page at a time is in memory."""
    bucket, name = _split(folder)
    prefix = name.rstrip("/") + "/" if name else ""
    for entry in _list(bucket, prefix, folder):
        yield entry._replace(path=entry.path[len(prefix) :])


def list_paths(folder: str) -> Iterator[str]:
    """Yields the paths that `list_files` does."""
    return (entry.path for entry in list_files(folder))


def matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Yields the files that a glob selects, sorted; see `places.matches`."""
    bucket, rest = _split(pattern)
    base = fixed_folder(rest)
    glob = Glob(rest[len(base) :])
    start = re.split(r"[*?\[]", rest, maxsplit=1)[0]
    for entry in _list(bucket, start, pattern):
        below = glob.below(entry.path[len(base) :])
        if below is not None:
            yield f"{_PREFIX}{bucket}/{entry.path}", below


def _list(bucket: str, prefix: str, shown: str) -> Iterator[Entry]:
    """Yields the objects whose names start with `prefix`; errors name `shown`."""
    with as_oserror(shown):
        blobs = client().list_blobs(
            _bucket(bucket),
            prefix=prefix,
            fields="items(name,size,crc32c),nextPageToken",
            retry=retry(),
            timeout=TIMEOUT_SECONDS,
        )
        for blob in blobs:
            if not blob.name.endswith("/"):  # the console's empty "folder" objects
                yield Entry(blob.name, blob.size or 0, blob.crc32c or "")


def exists(path: str) -> bool:
    """Whether an object exists."""
    with as_oserror(path):
        return bool(_blob(path).exists(retry=retry(), timeout=TIMEOUT_SECONDS))


def read_bytes(path: str) -> bytes:
    """Reads an object in one request and verifies its checksum."""
    return read_file(path).data


def read_file(path: str, admit: Admit | None = None) -> StoredFile:
    """Reads an object in one request and verifies its checksum; see `places.read_file`."""

    def attempt() -> StoredFile:
        arriving = _Arriving(path, admit)
        # The client's own retry resumes a broken download and then skips the checksum.
        _blob(path).download_to_file(
            arriving, checksum="crc32c", retry=None, timeout=TIMEOUT_SECONDS
        )
        return arriving.finish()

    try:
        with as_oserror(path):
            return retried(attempt)
    except _Refused as refused:  # an exception of `admit` is not an error of the service
        raise refused.why from None


class _Refused(Exception):
    """Passes the exception that ends a download through the client unchanged."""

    def __init__(self, why: BaseException) -> None:
        self.why = why
        super().__init__(str(why))


class _Arriving:
    """The file object that a download writes to; it can end the download.

    Args:
        path: the object.
        admit: see `files.Admit`.
    """

    def __init__(self, path: str, admit: Admit | None) -> None:
        self._path, self._admit = path, admit
        self._limit: int | None = None
        self._content = io.BytesIO()

    def write(self, piece: bytes) -> int:
        """Adds the next piece.

        Raises:
            _Refused: the object is too large or was rejected.
        """
        size = self._content.tell() + len(piece)
        if self._limit is not None and size > self._limit:
            raise _Refused(FileTooLarge(self._path, _announced_size(), self._limit))
        self._content.write(piece)
        if self._admit is not None and self._limit is None and size >= START_BYTES:
            self._judge()
        return len(piece)

    def seek(self, offset: int) -> int:
        """Restarts the content; the client calls it if the service decompresses the object."""
        self._content.truncate(offset)
        return self._content.seek(offset)

    def _judge(self) -> None:
        """Calls `admit` on the first bytes and checks the size in the response's headers."""
        assert self._admit is not None
        try:
            self._limit = self._admit(self._content.getvalue()[:START_BYTES])
        except BaseException as error:
            raise _Refused(error) from error
        size = _announced_size()
        if (size or self._content.tell()) > self._limit:
            raise _Refused(FileTooLarge(self._path, size, self._limit))

    def finish(self) -> StoredFile:
        """Returns the content, whose checksum the client has verified."""
        if self._admit is not None and self._limit is None:
            self._judge()
        data = self._content.getvalue()  # shares the buffer, no copy
        return StoredFile(data, _announced_crc32c() or f"{google_crc32c.value(data):08x}")


def _announced_size() -> int | None:
    """Returns the size of this thread's current download, if the response's headers have it."""
    headers = last_headers()
    size = headers.get("X-Goog-Stored-Content-Length") or headers.get("Content-Length") or ""
    return int(size) if size.isdigit() and not headers.get("Content-Encoding") else None


def _announced_crc32c() -> str | None:
    """Returns the checksum of this thread's last download, if the response's headers have it."""
    headers = last_headers()
    if headers.get("Content-Encoding"):  # the checksum is that of the compressed bytes
        return None
    found = re.search(r"\bcrc32c=([A-Za-z0-9+/=]+)", headers.get("X-Goog-Hash") or "")
    return base64.b64decode(found[1]).hex() if found else None


def download(path: str, target: Path, crc32c: str) -> None:
    """Downloads an object of any size to a local file.

    Args:
        path: the object.
        target: the local file, which is replaced if it exists.
        crc32c: the expected CRC-32C in base64.
    """

    def attempt() -> None:
        with target.open("w+b") as file:
            # A broken download is resumed, so the checksum is computed at the end.
            _blob(path).download_to_file(
                file, checksum=None, retry=retry(), timeout=TIMEOUT_SECONDS
            )
            if crc32c and _identity_of_file(file)[1] != crc32c:
                raise Corrupt(path)

    with as_oserror(path):
        retried(attempt)


def write_whole(path: str, data: bytes, *, replace: bool = False) -> None:
    """Writes an object in one upload; see `places.write_whole`.

    Without `replace`, the upload has the precondition that the object does not exist. If an object
    with the same bytes exists, the write has succeeded: the response of this upload was lost, or
    another worker has written the same image. A record is therefore never torn or silently
    overwritten, and a late retry of a dead worker cannot undo a newer write.
    """
    _write(
        path,
        lambda blob, how: blob.upload_from_string(data, "application/octet-stream", **how),
        lambda: (len(data), base64.b64encode(google_crc32c.Checksum(data).digest()).decode()),
        replace,
    )


@contextlib.contextmanager
def open_whole(path: str, *, replace: bool = False) -> Iterator[IO[bytes]]:
    """Opens a temporary local file that is uploaded at the end; see `places.open_whole`."""
    with tempfile.TemporaryFile() as file:
        yield file
        size = file.seek(0, 2)  # with a known size, a small file is one request
        _write(
            path,
            lambda blob, how: blob.upload_from_file(file, rewind=True, size=size, **how),
            lambda: _identity_of_file(file),
            replace,
        )


def _write(
    path: str,
    upload: Callable[[Any, dict[str, Any]], None],
    identity: Callable[[], tuple[int, str]],
    replace: bool,
) -> None:
    from google.api_core.exceptions import PreconditionFailed

    how: dict[str, Any] = {"checksum": "crc32c", "retry": retry(), "timeout": TIMEOUT_SECONDS}
    if not replace:
        how["if_generation_match"] = 0
    with as_oserror(path):
        blob = _blob(path)
        for _ in range(_RACES):
            try:
                upload(blob, how)
                return
            except PreconditionFailed:
                existing = blob.bucket.get_blob(blob.name, retry=retry(), timeout=TIMEOUT_SECONDS)
            if existing is None:  # removed in the meantime
                continue
            if (existing.size, existing.crc32c) == identity():
                return
            raise OtherContent(f"{path} exists with other content: another run wrote it")
    raise OSError(f"{path}: other processes keep writing and removing it")


def remove(path: str) -> None:
    """Removes an object; does nothing if it is missing."""
    with contextlib.suppress(FileNotFoundError), as_oserror(path):
        _blob(path).delete(retry=retry(), timeout=TIMEOUT_SECONDS)


def why_not_writable(folder: str) -> str | None:
    """Lists one name. A missing write permission is found only at the first write."""
    try:
        next(list_files(folder), None)
    except OSError as error:
        return str(error)
    return None


def _split(path: str) -> tuple[str, str]:
    """Returns the bucket and the object's name, which may be empty.

    Raises:
        OSError: the bucket's name is invalid; `FileNotFoundError` if it is missing.
    """
    if why := check_name(path):
        raise (FileNotFoundError if "names no" in why else OSError)(f"{path}: {why}")
    bucket, _, name = path.removeprefix(_PREFIX).partition("/")
    return bucket, name


def _identity_of_file(file: IO[bytes]) -> tuple[int, str]:
    """Returns an open file's size in bytes and its CRC-32C in base64."""
    file.seek(0)
    found = google_crc32c.Checksum()
    size = sum(len(piece) for piece in found.consume(file, _PIECE))
    return size, base64.b64encode(found.digest()).decode()


def _bucket(name: str) -> Any:
    return client().bucket(name, user_project=settings().billing_project)


def _blob(path: str) -> Any:
    bucket, name = _split(path)
    if not name:
        raise IsADirectoryError(f"{path} is a bucket, not an object")
    return _bucket(bucket).blob(name)
