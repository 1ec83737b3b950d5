"""Credentials of DICOMweb stores, which only the environment and ~/.netrc contain."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from cxr_embed.errors import PlaceGone
from cxr_embed.storage.clients import ClientCache
from cxr_embed.storage.dicomweb_address import Address

TOKEN, USER, PASSWORD = (
    "CXR_EMBED_DICOMWEB_TOKEN", "CXR_EMBED_DICOMWEB_USER", "CXR_EMBED_DICOMWEB_PASSWORD"
)  # fmt: skip

# The Cloud Healthcare API. Application default credentials are sent to no other host.
_GOOGLE = "healthcare.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-healthcare"


def of(address: Address) -> Callable[[Any], Any]:
    """Returns what adds the credentials of a store to a request, as requests takes it.

    In this order: the token, the user's name and password, Google's application default credentials
    for its own host, `~/.netrc`.

    Raises:
        PlaceGone: a token would be sent in a form that others on the network can read.
        google.auth.exceptions.GoogleAuthError: there are no valid credentials.
    """
    value = _authorization(address)

    def add(request: Any) -> Any:
        if value:
            request.headers["Authorization"] = value
        return request

    return add


def secrets() -> list[str]:
    """Returns the values in the environment that no message may contain."""
    return [value for name in (TOKEN, PASSWORD, USER) if (value := os.environ.get(name))]


def why_not_sent(address: Address) -> str | None:
    """Returns why the token may not be sent to a store, or None."""
    if os.environ.get(TOKEN) and address.is_plain_to_others:
        return f"{TOKEN} is not sent without encryption: use dicomweb+https://, or unset it"
    return None


def _authorization(address: Address) -> str | None:
    if why := why_not_sent(address):
        raise PlaceGone(f"{address.host}: {why}")
    if token := os.environ.get(TOKEN):
        return f"Bearer {token}"
    pair: tuple[str, str] | None = None
    if os.environ.get(USER):
        pair = os.environ[USER], os.environ.get(PASSWORD, "")
    elif address.host == _GOOGLE and address.scheme == "dicomweb+https":
        return _google_token()
    else:
        from requests.utils import get_netrc_auth

        pair = get_netrc_auth(address.service)
    if pair is None:
        return None
    if address.is_plain_to_others:
        _warn(address.host)
    from requests.auth import _basic_auth_str

    return str(_basic_auth_str(pair[0].encode(), pair[1].encode()))


@functools.cache
def _warn(host: str) -> None:
    logging.getLogger(__name__).warning(
        "the password for %s is sent without encryption: use dicomweb+https://", host
    )


class _Google:
    """Google's application default credentials, refreshed by one thread at a time."""

    def __init__(self) -> None:
        import google.auth

        self._credentials, _ = google.auth.default(scopes=[_SCOPE])
        self._lock = threading.Lock()

    def token(self) -> str:
        from google.auth.transport.requests import Request

        with self._lock:
            if not self._credentials.valid:
                self._credentials.refresh(Request())
            return str(self._credentials.token)


_google = ClientCache(_Google, ("GOOGLE_APPLICATION_CREDENTIALS",))


def _google_token() -> str:
    return f"Bearer {_google.get().token()}"
