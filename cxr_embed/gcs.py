"""Files in gs:// buckets: one request a read, one a write, a thousand names a listing's page.

Used through `cxr_embed.storage`. Whatever the client raises comes out as the OSError that a local
file would raise, with the path in it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from cxr_embed.errors import UsageError, one_line

PREFIX = "gs://"

# Kept in the environment, so that processes that this one starts have them, too.
BILLING_PROJECT_VARIABLE = "CXR_EMBED_GCS_BILLING_PROJECT"
RETRY_SECONDS_VARIABLE = "CXR_EMBED_GCS_RETRY_SECONDS"

_RETRY_SECONDS = 180.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 20.0

# To connect; between two pieces of an answer.
_TIMEOUT_SECONDS = (10.0, 60.0)

# More than the threads of a worker, so that none of them waits for a connection or opens anew.
_CONNECTIONS = 64

# Each lost race is somebody else's whole write.
_RACES = 8

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class GcsSettings:
    """How to speak to Google Cloud Storage; small, and pickles on its way to a worker.

    Attributes:
        billing_project: pays for requests and traffic; needed for requester-pays buckets.
        retry_seconds: how long one read, write or page of a listing is tried again while the
            service is busy or away.
    """

    billing_project: str | None = None
    retry_seconds: float = _RETRY_SECONDS


class Object(NamedTuple):
    """An object in a bucket: its whole name, its size in bytes, its CRC-32C in base64."""

    name: str
    size: int
    crc32c: str


def configure(settings: GcsSettings) -> None:
    """Sets how this process and those that it starts speak to Google Cloud Storage."""
    os.environ[RETRY_SECONDS_VARIABLE] = str(settings.retry_seconds)
    if settings.billing_project:
        os.environ[BILLING_PROJECT_VARIABLE] = settings.billing_project
    else:
        os.environ.pop(BILLING_PROJECT_VARIABLE, None)


def settings() -> GcsSettings:
    """Returns what was configured, by `configure` or in the environment.

    Raises:
        UsageError: the environment says no number of seconds.
    """
    seconds = os.environ.get(RETRY_SECONDS_VARIABLE) or _RETRY_SECONDS
    try:
        return GcsSettings(os.environ.get(BILLING_PROJECT_VARIABLE) or None, float(seconds))
    except ValueError as error:
        raise UsageError(f"{RETRY_SECONDS_VARIABLE}={seconds} is no number of seconds") from error


def list_objects(bucket: str, prefix: str, shown: str) -> Iterator[Object]:
    """Yields the objects whose names start with `prefix`, sorted by name, a page in memory.

    Args:
        bucket: its name.
        prefix: may be empty.
        shown: the path that errors name.
    """
    with _as_oserror(shown):
        blobs = _client().list_blobs(
            _bucket(bucket),
            prefix=prefix,
            fields="items(name,size,crc32c),nextPageToken",
            retry=_retry(),
            timeout=_TIMEOUT_SECONDS,
        )
        for blob in blobs:
            yield Object(blob.name, blob.size or 0, blob.crc32c or "")


def exists(path: str) -> bool:
    """Whether an object is there."""
    with _as_oserror(path):
        return bool(_blob(path).exists(retry=_retry(), timeout=_TIMEOUT_SECONDS))


def read(path: str) -> bytes:
    """Reads a whole object, in one request; its checksum is verified."""

    def attempt() -> bytes:
        # The client's own retry goes on where an answer broke off, and then checks no checksum.
        return bytes(
            _blob(path).download_as_bytes(checksum="crc32c", retry=None, timeout=_TIMEOUT_SECONDS)
        )

    with _as_oserror(path):
        return _retried(attempt)


def download(path: str, target: Path, crc32c: str) -> None:
    """Reads an object of any size into a local file.

    Args:
        path: the object.
        target: a file to make or to replace.
        crc32c: what its content has to give.
    """
    import google_crc32c

    def attempt() -> None:
        with target.open("w+b") as file:
            # A broken answer is taken up where it ended, so the checksum is taken at the end.
            _blob(path).download_to_file(
                file, checksum=None, retry=_retry(), timeout=_TIMEOUT_SECONDS
            )
            file.seek(0)
            found = google_crc32c.Checksum()
            for _ in found.consume(file, 1 << 20):
                pass
        if crc32c and base64.b64encode(found.digest()).decode() != crc32c:
            raise _Corrupt(path)

    with _as_oserror(path):
        _retried(attempt)


def write(path: str, data: bytes) -> None:
    """Writes an object in one upload; it appears whole or not at all.

    Each upload says which generation it replaces (none, at first), and the service refuses it when
    another one stands. What stands then is either the very same bytes, this upload's own whose
    answer was lost or another worker's, and all is done; or something else, which is replaced
    under the same condition. So nothing is torn, doubled, or written over unseen, and a late
    retry of a dead worker never undoes a newer write.
    """
    _write(
        path,
        lambda blob, how: blob.upload_from_string(data, "application/octet-stream", **how),
        lambda: _identity(data),
    )


def write_file(path: str, file: IO[bytes]) -> None:
    """Writes an object from a file that is too large for memory, as `write` does."""
    _write(
        path,
        lambda blob, how: blob.upload_from_file(file, rewind=True, **how),
        lambda: _identity_of_file(file),
    )


def _write(
    path: str,
    upload: Callable[[Any, dict[str, Any]], None],
    identity: Callable[[], tuple[int, str]],
) -> None:
    from google.api_core.exceptions import PreconditionFailed

    how = {"checksum": "crc32c", "retry": _retry(), "timeout": _TIMEOUT_SECONDS}
    generation = 0
    with _as_oserror(path):
        blob = _blob(path)
        for _ in range(_RACES):
            try:
                upload(blob, how | {"if_generation_match": generation})
                return
            except PreconditionFailed:
                standing = blob.bucket.get_blob(blob.name, retry=_retry(), timeout=_TIMEOUT_SECONDS)
            if standing is not None and (standing.size, standing.crc32c) == identity():
                return
            generation = standing.generation if standing is not None else 0
    raise OSError(f"{path}: others keep writing it")


def remove(path: str) -> None:
    """Removes one object.

    Raises:
        FileNotFoundError: there is none.
    """
    with _as_oserror(path):
        _blob(path).delete(retry=_retry(), timeout=_TIMEOUT_SECONDS)


def split(path: str) -> tuple[str, str]:
    """Returns the bucket and the object's name, which may be empty.

    Raises:
        FileNotFoundError: no bucket is named.
    """
    bucket, _, name = path.removeprefix(PREFIX).partition("/")
    if not bucket:
        raise FileNotFoundError(f"{path} names no bucket")
    return bucket, name


def _identity(data: bytes) -> tuple[int, str]:
    import google_crc32c

    return len(data), base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def _identity_of_file(file: IO[bytes]) -> tuple[int, str]:
    import google_crc32c

    file.seek(0)
    found = google_crc32c.Checksum()
    size = sum(len(piece) for piece in found.consume(file, 1 << 20))
    return size, base64.b64encode(found.digest()).decode()


class _Corrupt(Exception):
    """An object arrived with another checksum than it has."""


def _should_retry(error: BaseException) -> bool:
    from google.cloud.storage import retry
    from google.cloud.storage.exceptions import DataCorruption

    # The client's own list: 408, 429, 5xx, and connections that break or time out.
    return isinstance(error, DataCorruption | _Corrupt) or retry.DEFAULT_RETRY._predicate(error)


def _retry() -> Any:
    from google.api_core.retry import Retry

    return Retry(
        predicate=_should_retry,
        initial=_FIRST_PAUSE_SECONDS,
        maximum=_LONGEST_PAUSE_SECONDS,
        multiplier=2.0,
        timeout=settings().retry_seconds,
    )


def _retried(attempt: Callable[[], _Result]) -> _Result:
    result: _Result = _retry()(attempt)()
    return result


# One client a process: it is safe for threads, not for forks, and its connections are kept.
_clients: dict[tuple[int, str | None], Any] = {}
_clients_lock = threading.Lock()


def _reset_after_fork() -> None:
    global _clients_lock  # noqa: PLW0603
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _client() -> Any:
    # Only tests name an emulator, and another one each.
    key = os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST")
    with _clients_lock:
        if key not in _clients:
            _clients.clear()
            _clients[key] = _new_client()
        return _clients[key]


def _new_client() -> Any:
    import google.auth
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    # Else the client asks for each bucket's own metadata, to label traces that nobody collects.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        client = storage.Client.create_anonymous_client()
    else:
        credentials, project = google.auth.default(
            scopes=["https://www.googleapis.com/auth/devstorage.read_write"]
        )
        # Only making a bucket needs a project, and nothing here makes one.
        client = storage.Client(project or "none", credentials)
    adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
    client._http.mount("https://", adapter)
    client._http.mount("http://", adapter)
    return client


def _bucket(name: str) -> Any:
    return _client().bucket(name, user_project=settings().billing_project)


def _blob(path: str) -> Any:
    bucket, name = split(path)
    if not name:
        raise IsADirectoryError(f"{path} is a bucket, not an object")
    return _bucket(bucket).blob(name)


@contextlib.contextmanager
def _as_oserror(path: str) -> Iterator[None]:
    """Turns the client's many exceptions into those that local files raise."""
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.storage.exceptions import InvalidResponse
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except exceptions.NotFound as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise PermissionError(f"{path}: {_why(error)}") from error
    except DefaultCredentialsError as error:
        raise PermissionError(
            f"{path}: no Google Cloud credentials here: run gcloud auth application-default login"
        ) from error
    except exceptions.RetryError as error:
        raise OSError(
            f"{path}: gave up after {settings().retry_seconds:.0f} s: {_why(error.cause)}"
        ) from error
    except (
        exceptions.GoogleAPIError,
        InvalidResponse,
        GoogleAuthError,
        RequestException,
        HTTPError,
        ConnectionError,
        _Corrupt,
    ) as error:
        raise OSError(f"{path}: {_why(error)}") from error


def _why(error: BaseException | None) -> str:
    """Returns what the service or the connection said, in one line."""
    errors = getattr(error, "errors", None)
    said = errors[0].get("message") if errors and isinstance(errors[0], dict) else None
    code = getattr(error, "code", None)
    status = f"{int(code)} " if isinstance(code, int) else ""
    text = f"{status}{said or type(error).__name__}"
    if "requester pays" in f"{said} {error}".lower() and not settings().billing_project:
        text += ": pass --gcs_billing_project, the project that pays for reading it"
    return one_line(text)
