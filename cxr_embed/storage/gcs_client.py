"""The Google Cloud Storage client of a process, and what its exceptions mean."""

from __future__ import annotations

import os
import threading
from typing import Any

from cxr_embed.errors import PlaceUnavailable, one_line
from cxr_embed.storage.clients import CONNECTIONS, ClientCache
from cxr_embed.storage.settings import settings

# The headers of the last response, for each thread.
_last_answer = threading.local()


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
    adapter = HTTPAdapter(pool_maxsize=CONNECTIONS)
    made._http.mount("https://", adapter)
    made._http.mount("http://", adapter)
    made._http.hooks["response"].append(_keep_headers)
    return made


_client = ClientCache(_new_client, ("STORAGE_EMULATOR_HOST",))


def client() -> Any:
    """Returns this process's client."""
    return _client.get()


def is_passing(error: BaseException) -> bool:
    """Whether an exception may not be raised by the next request."""
    from google.cloud.storage import retry as google_retry

    # The client's own list: 408, 429, 5xx, broken connections and timeouts.
    return bool(google_retry.DEFAULT_RETRY._predicate(error))


def as_oserror(path: str, error: Exception) -> OSError | None:
    """Returns the error of a local file that an exception corresponds to, see `ObjectStore`."""
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.storage.exceptions import InvalidResponse
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.NotFound):
        return FileNotFoundError(f"{path} does not exist")
    if isinstance(error, exceptions.Forbidden):
        return PermissionError(f"{path}: {why(error)}")
    if isinstance(error, DefaultCredentialsError):
        return PlaceUnavailable(
            f"{path}: no Google Cloud credentials here: run gcloud auth application-default login"
        )
    if isinstance(error, exceptions.Unauthorized | GoogleAuthError):
        return PlaceUnavailable(
            f"{path}: {why(error)}: the credentials are not valid or have expired: run gcloud "
            "auth application-default login"
        )
    if isinstance(
        error,
        exceptions.TooManyRequests
        | exceptions.ServerError
        | RequestException
        | HTTPError
        | ConnectionError,
    ):
        return PlaceUnavailable(f"{path}: {why(error)}")
    if isinstance(error, exceptions.GoogleAPIError | InvalidResponse):
        return OSError(f"{path}: {why(error)}")
    return None


def why(error: BaseException | None) -> str:
    """Returns the service's or the connection's error message in one line."""
    errors = getattr(error, "errors", None)
    message = errors[0].get("message") if errors and isinstance(errors[0], dict) else None
    code = getattr(error, "code", None)
    status = f"{int(code)} " if isinstance(code, int) else ""
    text = f"{status}{message or type(error).__name__}"
    if "requester pays" in f"{message} {error}".lower() and not settings().billing_project:
        text += ": pass --gcs_billing_project, the project that pays for reading it"
    return one_line(text)
