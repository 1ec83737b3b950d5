"""How this program speaks to Google Cloud Storage: settings, one client, retries, errors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from cxr_embed.errors import PlaceUnavailable, UsageError, one_line

# Kept in the environment, so that processes that this one starts have them, too.
BILLING_PROJECT_VARIABLE = "CXR_EMBED_GCS_BILLING_PROJECT"
RETRY_SECONDS_VARIABLE = "CXR_EMBED_GCS_RETRY_SECONDS"

# To connect; between two pieces of an answer.
TIMEOUT_SECONDS = (10.0, 60.0)

_RETRY_SECONDS = 180.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 20.0

# More than the threads of a worker, so that none of them waits for a connection or opens anew.
_CONNECTIONS = 64

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
        UsageError: the environment gives no number of seconds.
    """
    seconds = os.environ.get(RETRY_SECONDS_VARIABLE) or _RETRY_SECONDS
    try:
        return GcsSettings(os.environ.get(BILLING_PROJECT_VARIABLE) or None, float(seconds))
    except ValueError as error:
        raise UsageError(f"{RETRY_SECONDS_VARIABLE}={seconds} is no number of seconds") from error


class Corrupt(Exception):
    """An object arrived with another checksum than it has."""


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
    """Calls `attempt` until it succeeds, fails for good, or the time is used up."""
    result: _Result = retry()(attempt)()
    return result


def _should_retry(error: BaseException) -> bool:
    from google.cloud.storage import retry as google_retry
    from google.cloud.storage.exceptions import DataCorruption

    # The client's own list: 408, 429, 5xx, and connections that break or time out.
    return isinstance(error, DataCorruption | Corrupt) or google_retry.DEFAULT_RETRY._predicate(
        error
    )


# One client a process: it is safe for threads, not for forks, and its connections are kept.
_clients: dict[tuple[int, str | None], Any] = {}
_clients_lock = threading.Lock()

# The headers of the last answer, for each thread.
_last_answer = threading.local()


def _reset_after_fork() -> None:
    global _clients_lock  # noqa: PLW0603
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def client() -> Any:
    """Returns this process's client."""
    # Only tests name an emulator, and another one each.
    key = os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST")
    with _clients_lock:
        if key not in _clients:
            _clients.clear()
            _clients[key] = _new_client()
        return _clients[key]


def last_headers() -> Any:
    """Returns the headers of the last answer that this thread got, by name in any case.

    The client hands a download's content to a writer, and its headers to nobody until the end:
    then it is too late to refuse a file that is too large.
    """
    return _last_answer.headers


def _keep_headers(response: Any, *_: Any, **__: Any) -> None:
    _last_answer.headers = response.headers


def _new_client() -> Any:
    import google.auth
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    # Else the client asks for each bucket's own metadata, to label traces that are not collected.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        made = storage.Client.create_anonymous_client()
    else:
        credentials, project = google.auth.default(
            scopes=["https://www.googleapis.com/auth/devstorage.read_write"]
        )
        # Only making a bucket needs a project, and nothing here makes one.
        made = storage.Client(project or "none", credentials)
    adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
    made._http.mount("https://", adapter)
    made._http.mount("http://", adapter)
    made._http.hooks["response"].append(_keep_headers)
    return made


@contextlib.contextmanager
def as_oserror(path: str) -> Iterator[None]:
    """Turns the client's many exceptions into those that local files raise.

    Args:
        path: what errors name.

    Raises:
        FileNotFoundError: the object or bucket does not exist.
        PermissionError: access to it is forbidden.
        PlaceUnavailable: the service did not answer after all retries, or there are no valid
            credentials for it.
        OSError: anything else that the service refused or broke.
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
        if isinstance(error.cause, DataCorruption | Corrupt):  # this object's own trouble
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
        UnicodeError,  # a name that is not text
    ) as error:
        raise OSError(f"{path}: {_why(error)}") from error


def _why(error: BaseException | None) -> str:
    """Returns what the service or the connection answered, in one line."""
    errors = getattr(error, "errors", None)
    said = errors[0].get("message") if errors and isinstance(errors[0], dict) else None
    code = getattr(error, "code", None)
    status = f"{int(code)} " if isinstance(code, int) else ""
    text = f"{status}{said or type(error).__name__}"
    if "requester pays" in f"{said} {error}".lower() and not settings().billing_project:
        text += ": pass --gcs_billing_project, the project that pays for reading it"
    return one_line(text)
