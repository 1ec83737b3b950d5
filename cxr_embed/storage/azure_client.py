"""The Azure Blob Storage client of a process, and what its exceptions mean."""

from __future__ import annotations

import os
import re
from typing import Any

from cxr_embed.errors import PlaceUnavailable, one_line
from cxr_embed.storage.clients import CONNECTIONS, TIMEOUT_SECONDS, ClientCache

# The names of the Azure CLI and of adlfs.
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_ACCOUNT = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
_KEY = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
_SAS = "AZURE_STORAGE_SAS_TOKEN"
_ENDPOINT = "AZURE_STORAGE_SERVICE_ENDPOINT"
_ANONYMOUS = "AZURE_STORAGE_ANON"

_CONFIGURED_BY = (
    _CONNECTION, *_ACCOUNT, *_KEY, _SAS, _ENDPOINT, _ANONYMOUS, "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET",
)  # fmt: skip

_HOW_TO_SIGN_IN = f"set {_CONNECTION}, or {_ACCOUNT[0]} and {_KEY[0]} or {_SAS}, or run az login"

# An upload up to this size is one request.
ONE_REQUEST = 32 << 20


def _first_of(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _new_client() -> Any:
    from azure.core.pipeline.transport import RequestsTransport
    from azure.storage.blob import BlobServiceClient
    from requests import Session
    from requests.adapters import HTTPAdapter

    session = Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    how: dict[str, Any] = {
        "retry_total": 0,  # retries are this program's own
        "connection_timeout": TIMEOUT_SECONDS[0],
        "read_timeout": TIMEOUT_SECONDS[1],
        "max_single_put_size": ONE_REQUEST,
        "logging_enable": False,
        "transport": RequestsTransport(session=session, session_owner=False),
    }
    connection = os.environ.get(_CONNECTION)
    try:
        if connection:
            return BlobServiceClient.from_connection_string(connection, **how)
        account, endpoint = _first_of(_ACCOUNT), os.environ.get(_ENDPOINT)
        if not account and not endpoint:
            raise PlaceUnavailable(f"no Azure storage account is set: {_HOW_TO_SIGN_IN}")
        address = endpoint or f"https://{account}.blob.core.windows.net"
        return BlobServiceClient(address, credential=_credential(account), **how)
    except ValueError:  # its text may contain a key
        raise PlaceUnavailable(f"the Azure settings are not valid: {_HOW_TO_SIGN_IN}") from None


def _credential(account: str | None) -> Any:
    if key := _first_of(_KEY):
        return {"account_name": account, "account_key": key}
    if sas := os.environ.get(_SAS):
        return sas.removeprefix("?")
    if (os.environ.get(_ANONYMOUS) or "").lower() in ("true", "1"):  # public containers
        return None
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


_client = ClientCache(_new_client, _CONFIGURED_BY)


def client() -> Any:
    """Returns this process's client."""
    return _client.get()


def is_passing(error: BaseException) -> bool:
    """Whether an exception may not be raised by the next request."""
    from azure.core import exceptions
    from requests import exceptions as requests_exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientAuthenticationError):
        return False
    if isinstance(error, exceptions.HttpResponseError) and error.status_code:
        return error.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(
        error,
        exceptions.ServiceRequestError
        | exceptions.ServiceResponseError
        | exceptions.HttpResponseError  # a response that broke off
        | exceptions.DecodeError
        | requests_exceptions.ConnectionError
        | requests_exceptions.ChunkedEncodingError
        | HTTPError
        | ConnectionError,
    )


def as_oserror(path: str, error: Exception) -> OSError | None:
    """Returns the error of a local file that an exception corresponds to, see `ObjectStore`."""
    from azure.core import exceptions

    if isinstance(error, PlaceUnavailable):  # the settings
        return PlaceUnavailable(f"{path}: {error}")
    if not isinstance(error, exceptions.AzureError):
        return None
    code = code_of(error)
    status = getattr(error, "status_code", None)
    if isinstance(error, exceptions.ResourceNotFoundError):
        return FileNotFoundError(f"{path} does not exist")
    if (
        isinstance(error, exceptions.ClientAuthenticationError)
        or status == 401
        or code in ("AuthenticationFailed", "NoAuthenticationInformation")
    ):
        return PlaceUnavailable(
            f"{path}: {why(error)}: there are no valid credentials: {_HOW_TO_SIGN_IN}"
        )
    if status == 403:
        return PermissionError(f"{path}: {why(error)}")
    if status in (409, 412) or (status and 400 <= status < 500):
        return OSError(f"{path}: {why(error)}")
    return PlaceUnavailable(f"{path}: {why(error)}")


def code_of(error: BaseException | None) -> str:
    """Returns the service's code of an error; empty if it is none of the service."""
    code = getattr(error, "error_code", None)
    # The client sets it only for requests that it has a method for.
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return str(getattr(code, "value", code) or headers.get("x-ms-error-code") or "")


def why(error: BaseException | None) -> str:
    """Returns the service's or the connection's error in one line, without credentials."""
    status = getattr(error, "status_code", None)
    if status:
        return one_line(f"{status} {code_of(error) or getattr(error, 'reason', None) or ''}")
    text = re.sub(r"\?[^\s\"']*|(?<=//)[^/@\s]*@", "", str(error))  # signatures are in queries
    return one_line(text or type(error).__name__)
