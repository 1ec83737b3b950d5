"""The Google Cloud Storage client of a process: settings, retries and errors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from cxr_embed.errors import PlaceUnavailable, UsageError, one_line

# Kept in the environment, so that child processes inherit them.
BILLING_PROJECT_VARIABLE = "CXR_EMBED_GCS_BILLING_PROJECT"
RETRY_SECONDS_VARIABLE = "CXR_EMBED_GCS_RETRY_SECONDS"

# Connect timeout, read timeout.
TIMEOUT_SECONDS = (10.0, 60.0)

_RETRY_SECONDS = 180.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 20.0

# More than a worker's threads, so that no thread waits for a connection or opens a new one.
_CONNECTIONS = 64

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class GcsSettings:
    """Settings of the Google Cloud Storage client; can be pickled for workers.

    Attributes:
        billing_project: project that pays for requests and traffic; required for requester-pays
            buckets.
        retry_seconds: how long a read, a write or a page of a listing is retried while the service
            is busy or unavailable.
    """

    billing_project: str | None = None
    retry_seconds: float = _RETRY_SECONDS


def configure(settings: GcsSettings) -> None:
    """Configures the Google Cloud Storage client of this process and its child processes."""
    os.environ[RETRY_SECONDS_VARIABLE] = str(settings.retry_seconds)
    if settings.billing_project:
        os.environ[BILLING_PROJECT_VARIABLE] = settings.billing_project
    else:
        os.environ.pop(BILLING_PROJECT_VARIABLE, None)


def settings() -> GcsSettings:
    """Returns the settings from `configure` or from the environment.

    Raises:
        UsageError: the seconds in the environment are not a number.
    """
    seconds = os.environ.get(RETRY_SECONDS_VARIABLE) or _RETRY_SECONDS
    try:
        return GcsSettings(os.environ.get(BILLING_PROJECT_VARIABLE) or None, float(seconds))
    except ValueError as error:
        raise UsageError(f"{RETRY_SECONDS_VARIABLE}={seconds} is not a number") from error


class Corrupt(Exception):
    """The downloaded bytes do not match the object's checksum."""


def retry() -> Any:
    """Returns the retry policy of every request."""
    from google.api_core.retry import Retry

    return Retry(
        predicate=_should_retry,
        initial=_FIRST_PAUSE_SECONDS,
        maximum=_LONGEST_PAUSE_SECONDS,
        multiplier=2.0,
        timeout=settings().retry_seconds,
    )


def retried(attempt: Callable[[], _Result]) -> _Result:
    """Calls `attempt` until it succeeds, raises a permanent error, or the retry time is over."""
    result: _Result = retry()(attempt)()
    return result


def _should_retry(error: BaseException) -> bool:
    from google.cloud.storage import retry as google_retry
    from google.cloud.storage.exceptions import DataCorruption

    # The client's own list: 408, 429, 5xx, broken connections and timeouts.
    return isinstance(error, DataCorruption | Corrupt) or google_retry.DEFAULT_RETRY._predicate(
        error
    )


# One client per process: it keeps its connections and is safe for threads, but not for forks.
_clients: dict[tuple[int, str | None], Any] = {}
_clients_lock = threading.Lock()

# The headers of the last response, for each thread.
_last_answer = threading.local()


def _reset_after_fork() -> None:
    global _clients_lock  # noqa: PLW0603
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def client() -> Any:
    """Returns this process's client."""
    # Tests set an emulator, each test another one.
    key = os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST")
    with _clients_lock:
        if key not in _clients:
            _clients.clear()
            _clients[key] = _new_client()
        return _clients[key]


def last_headers() -> Any:
    """Returns the headers of this thread's last response; names are case-insensitive.

    During a download the client does not expose the response's headers. They are needed before the
    end of a download, to reject a file that is too large.
    """
    return _last_answer.headers


def _keep_headers(response: Any, *_: Any, **__: Any) -> None:
    _last_answer.headers = response.headers


def _new_client() -> Any:
    import google.auth
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    # Otherwise the client requests each bucket's metadata, to label traces that are not collected.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        made = storage.Client.create_anonymous_client()
    else:
        credentials, project = google.auth.default(
            scopes=["https://www.googleapis.com/auth/devstorage.read_write"]
        )
        # A project is needed only to create a bucket, which this program never does.
        made = storage.Client(project or "none", credentials)
    adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
    made._http.mount("https://", adapter)
    made._http.mount("http://", adapter)
    made._http.hooks["response"].append(_keep_headers)
    return made


@contextlib.contextmanager
def as_oserror(path: str) -> Iterator[None]:
    """Raises the client's exceptions as those of local files.

    Args:
        path: the path in the messages.

    Raises:
        FileNotFoundError: the object or bucket does not exist.
        PermissionError: access to it is forbidden.
        PlaceUnavailable: the service did not answer after all retries, or there are no valid
            credentials for it.
        OSError: any other error of the service.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except exceptions.NotFound as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except exceptions.Forbidden as error:
        raise PermissionError(f"{path}: {_why(error)}") from error
    except DefaultCredentialsError as error:
        raise PlaceUnavailable(
            f"{path}: no Google Cloud credentials here: run gcloud auth application-default login"
        ) from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise PlaceUnavailable(
            f"{path}: {_why(error)}: the credentials are not valid or have expired: run gcloud "
            "auth application-default login"
        ) from error
    except exceptions.RetryError as error:
        gave_up = f"{path}: gave up after {settings().retry_seconds:.0f} s: {_why(error.cause)}"
        if isinstance(error.cause, DataCorruption | Corrupt):  # only this object is affected
            raise OSError(gave_up) from error
        raise PlaceUnavailable(gave_up) from error
    except (
        exceptions.TooManyRequests,
        exceptions.ServerError,
        RequestException,
        HTTPError,
        ConnectionError,
    ) as error:
        raise PlaceUnavailable(f"{path}: {_why(error)}") from error
    except (
        exceptions.GoogleAPIError,
        InvalidResponse,
        Corrupt,
        DataCorruption,
        UnicodeError,  # a name that is not valid text
    ) as error:
        raise OSError(f"{path}: {_why(error)}") from error


def _why(error: BaseException | None) -> str:
    """Returns the service's or the connection's error message in one line."""
    errors = getattr(error, "errors", None)
    message = errors[0].get("message") if errors and isinstance(errors[0], dict) else None
    code = getattr(error, "code", None)
    status = f"{int(code)} " if isinstance(code, int) else ""
    text = f"{status}{message or type(error).__name__}"
    if "requester pays" in f"{message} {error}".lower() and not settings().billing_project:
        text += ": pass --gcs_billing_project, the project that pays for reading it"
    return one_line(text)
