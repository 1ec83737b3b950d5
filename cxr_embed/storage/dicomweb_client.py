"""Requests to DICOMweb stores: credentials, retries, and what answers and errors mean.

dicomweb-client is not used: it reads whole answers into memory, transcodes unless it is told every
transfer syntax, and neither pauses as Retry-After asks nor bounds the time of its retries.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from cxr_embed.errors import PlaceGone, one_line
from cxr_embed.storage import dicomweb_credentials
from cxr_embed.storage.clients import ClientCache
from cxr_embed.storage.dicomweb_address import Address
from cxr_embed.storage.retries import Corrupt, gave_up, retried
from cxr_embed.storage.settings import settings

# Connect timeout, read timeout.
_TIMEOUT_SECONDS = (10.0, 60.0)

# More than a worker's threads, so that no thread waits for a connection or opens a new one.
_CONNECTIONS = 64

_PIECE = 1 << 16

# A connection that has delivered less for so long has stalled.
_LEAST_BYTES_PER_SECOND, _PATIENCE_SECONDS = 1000.0, 60.0

# Request Timeout, Too Early, Too Many Requests, and what a busy or restarting server answers.
_PASSING = {408, 425, 429, 500, 502, 503, 504}

_Result = TypeVar("_Result")


class Answered(Exception):
    """An answer with an HTTP status of an error.

    Args:
        status: of the answer.
        words: what the server says about it, without what could identify a patient.
    """

    def __init__(self, status: int, words: str = "") -> None:
        self.status = status
        super().__init__(f"HTTP {status}{': ' if words else ''}{words}")


class Stalled(Exception):
    """The answer arrives so slowly that the connection is given up."""


@functools.cache
def _session_class() -> Any:
    import requests

    class Session(requests.Session):
        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            """Drops the credentials on the way to another host; looks for no others."""
            headers = prepared_request.headers
            if "Authorization" in headers and self.should_strip_auth(
                response.request.url, prepared_request.url
            ):
                del headers["Authorization"]

    return Session


def _new_session() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    from requests.adapters import HTTPAdapter

    session = _session_class()()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return session


_session = ClientCache(_new_session, ())


@contextlib.contextmanager
def answer(
    address: Address, url: str, headers: Mapping[str, str], filters: Any = (), *, words: bool
) -> Iterator[Any]:
    """Makes one request and yields its answer, whose body has not been read.

    Args:
        address: says which credentials are sent.
        url: without a query.
        headers: of the request.
        filters: keys and values of the query.
        words: whether an error contains what the server says about it.

    Raises:
        Answered: the status is not one of success.
        requests.RequestException: there is no answer.
    """
    query = f"?{_encoded(filters)}" if filters else ""
    response = _session.get().get(
        url + query, headers=dict(headers), stream=True, timeout=_TIMEOUT_SECONDS,
        auth=dicomweb_credentials.of(address),
    )  # fmt: skip
    with contextlib.closing(response):
        if response.status_code >= 300:
            _pause_as_asked(response)
            raise Answered(response.status_code, _words(response, filters) if words else "")
        yield response


def _encoded(filters: Any) -> str:
    """Returns a query. Wildcards stay as they are: Orthanc does not match an encoded one."""
    return "&".join(f"{key}={quote(value, safe='*?,:')}" for key, value in filters)


def pieces(response: Any) -> Iterator[bytes]:
    """Yields the body of an answer as it arrives.

    Raises:
        Corrupt: the answer ends too early.
        Stalled: it arrives too slowly.
    """
    from urllib3.exceptions import DecodeError, ProtocolError

    start, received = time.monotonic(), 0
    while True:
        try:
            piece = response.raw.read1(_PIECE, decode_content=True)
        except (ProtocolError, DecodeError) as error:
            raise Corrupt(f"the answer broke off after {received} bytes") from error
        if not piece:
            return
        received += len(piece)
        seconds = time.monotonic() - start
        if seconds > _PATIENCE_SECONDS and received < seconds * _LEAST_BYTES_PER_SECOND:
            raise Stalled(f"only {received} bytes arrived in {seconds:.0f} s")
        yield piece


def call(path: str, request: Callable[[], _Result]) -> _Result:
    """Makes a request until it succeeds or the retry time is over.

    Args:
        path: begins the message of an error.
        request: makes one attempt.

    Raises:
        PlaceGone: the store does not answer, or does not accept the credentials.
        PlaceUnavailable: it has an error for this request, each time.
        FileNotFoundError: it has no such object.
        PermissionError: it does not allow this request.
        OSError: it rejected the request, or its answer was never complete.
    """
    from google.api_core.exceptions import RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    try:
        return retried(request, _is_passing)
    except RetryError as error:
        given_up = gave_up(path, error.cause, _why(error.cause))
        if _is_of_all(error.cause):
            given_up = PlaceGone(str(given_up))
        raise given_up from error
    except Answered as error:
        raise _as_oserror(path, error) from error
    except (GoogleAuthError, RequestException) as error:
        raise PlaceGone(one_line(f"{path}: {_why(error)}")) from error


def _is_passing(error: BaseException) -> bool:
    from google.auth.exceptions import TransportError
    from requests import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, Answered):
        return error.status in _PASSING
    # A certificate that is not valid will not become valid.
    return not isinstance(error, exceptions.SSLError) and isinstance(
        error,
        Corrupt
        | Stalled
        | TransportError
        | HTTPError
        | exceptions.ConnectionError
        | exceptions.Timeout
        | exceptions.ChunkedEncodingError,
    )


def _is_of_all(error: BaseException | None) -> bool:
    """Whether other requests would meet an error, too. A 500 may be due to one damaged instance."""
    from requests import RequestException

    if isinstance(error, Answered):
        return error.status in (429, 503)
    return isinstance(error, RequestException)


def _as_oserror(path: str, error: Answered) -> OSError:
    text = one_line(f"{path}: {error}")
    if error.status in (404, 410):
        return FileNotFoundError(f"{text}: does not exist")
    if error.status in (401, 407):
        return PlaceGone(f"{text}: the credentials are missing or not valid")
    return PermissionError(text) if error.status == 403 else OSError(text)


def _why(error: BaseException | None) -> str:
    """Returns an error's text. Those of requests contain the URL, and with it the query."""
    if isinstance(error, Corrupt | Stalled | Answered):
        return str(error)
    from google.auth.exceptions import GoogleAuthError
    from requests import exceptions

    kind = type(error).__name__
    if isinstance(error, GoogleAuthError):
        return f"{kind}: run gcloud auth application-default login"
    if isinstance(error, exceptions.SSLError):
        kind = "the certificate cannot be verified (REQUESTS_CA_BUNDLE names a file of others)"
    seen: BaseException | None = error
    while seen is not None:
        if (
            isinstance(seen, OSError)
            and seen.strerror
            and not isinstance(seen, exceptions.RequestException)
        ):
            return one_line(f"{kind}: {seen.strerror}")
        seen = seen.__cause__ or seen.__context__
    return kind


def _pause_as_asked(response: Any) -> None:
    """Waits as the header Retry-After asks, at most as long as retries may take."""
    asked = response.headers.get("Retry-After", "")
    if response.status_code not in (429, 503) or not asked:
        return
    response.close()
    if asked.isdigit():
        seconds = float(asked)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return
    time.sleep(min(max(seconds, 0.0), settings().retry_seconds))


def _words(response: Any, filters: Any) -> str:
    """Returns what the server says about an error, without secrets and without values asked for."""
    try:
        text = response.raw.read(1 << 14, decode_content=True).decode("utf-8", "replace")
    except Exception:  # the words are a help, not a need
        return ""
    hidden = {value for key, value in filters if key not in ("limit", "offset", "includefield")}
    hidden |= {part for value in hidden for part in re.split(r"[\\^*,&\s-]+", value)}
    hidden |= set(dicomweb_credentials.secrets())
    words = _message(text)
    for value in sorted(hidden, key=len, reverse=True):
        for form in (value, quote(value), quote_plus(value)):
            if len(form) > 1:
                words = words.replace(form, "…")
    return one_line(words)[:200]


def _message(text: str) -> str:
    """Returns the message in an error's body, which is JSON or HTML."""
    try:
        body = json.loads(text)
    except ValueError:
        if re.match(r"\s*(?:<!doctype|<html)", text, re.IGNORECASE):
            title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
            return title[1] if title else ""
        return re.sub(r"<[^>]*>", " ", text)
    while isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if isinstance(body, dict):
        for key in ("Details", "message", "errorMessage", "Message", "detail", "error"):
            if isinstance(body.get(key), str) and body[key]:
                return str(body[key])
    return ""
