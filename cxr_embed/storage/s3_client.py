"""The S3 client of a process, and what its exceptions mean."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from typing import Any

from cxr_embed.errors import PlaceUnavailable, one_line
from cxr_embed.storage.clients import CONNECTIONS, TIMEOUT_SECONDS, ClientCache

_CONFIGURED_BY = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION",
    "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE",
    "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION",
)  # fmt: skip

_HOW_TO_SIGN_IN = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (aws configure)"

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_PASSING_CODES = {
    "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "ConditionalRequestConflict", "OperationAborted", "BadDigest", "XAmzContentChecksumMismatch",
    "IncompleteBody",
}  # fmt: skip
_PASSING_STATUSES = {408, 429, 500, 502, 503, 504, 509}
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_BAD_CREDENTIALS = {
    "401", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "RequestTimeTooSkewed", "InvalidSecurity", "Unauthorized",
    "AuthFailure", "UnauthorizedAccess", "NotSignedUp",
}  # fmt: skip
_DENIED = {"403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"}


def _new_client() -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    config = Config(
        # Retries are this program's own, since botocore's end with the headers of a response.
        retries={"total_max_attempts": 1},
        connect_timeout=TIMEOUT_SECONDS[0],
        read_timeout=TIMEOUT_SECONDS[1],
        max_pool_connections=CONNECTIONS,
        user_agent_extra="cxr-embed",
    )
    if session.get_credentials() is None:  # public buckets need none
        config = config.merge(Config(signature_version=UNSIGNED))
    region = session.get_config_variable("region") or os.environ.get("AWS_REGION") or None
    try:
        return session.create_client("s3", region_name=region, config=config)
    except ValueError as error:
        raise PlaceUnavailable("AWS_ENDPOINT_URL is no address such as http://host:9000") from error


_client = ClientCache(_new_client, _CONFIGURED_BY)


def client() -> Any:
    """Returns this process's client."""
    return _client.get()


def is_anonymous() -> bool:
    """Whether this process has no credentials."""
    from botocore import UNSIGNED

    return client().meta.config.signature_version is UNSIGNED


def try_to(request: Callable[[], object]) -> None:
    """Makes a request whose failure changes nothing."""
    with contextlib.suppress(Exception):
        request()


def code_of(error: BaseException | None) -> str:
    """Returns the service's code of an error; empty if it is none of the service."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def _status_of(error: BaseException | None) -> int:
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return 0
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_passing(error: BaseException) -> bool:
    """Whether an exception may not be raised by the next request."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        return code_of(error) in _PASSING_CODES or _status_of(error) in _PASSING_STATUSES
    if isinstance(error, exceptions.SSLError):
        return False
    return isinstance(
        error,
        exceptions.HTTPClientError
        | exceptions.ConnectionError
        | exceptions.IncompleteReadError
        | ResponseParserError
        | HTTPError
        | ConnectionError,
    )


def as_oserror(path: str, error: Exception) -> OSError | None:
    """Returns the error of a local file that an exception corresponds to, see `ObjectStore`."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    if isinstance(error, exceptions.ParamValidationError):
        return OSError(f"{path}: {why(error)}")
    if isinstance(error, exceptions.ClientError):
        return _refusal(path, error)
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return PlaceUnavailable(f"{path}: {why(error)}")
    if isinstance(error, exceptions.BotoCoreError):  # profiles, credentials and their files
        return PlaceUnavailable(f"{path}: {why(error)}: {_HOW_TO_SIGN_IN}")
    if isinstance(error, ResponseParserError):
        return PlaceUnavailable(f"{path}: {why(error)}")
    return None


def _refusal(path: str, error: Exception) -> OSError:
    code = code_of(error)
    if code in _MISSING:
        return FileNotFoundError(f"{path} does not exist")
    if code in _BAD_CREDENTIALS:
        return PlaceUnavailable(
            f"{path}: {why(error)}: the credentials are not valid or have expired: "
            f"{_HOW_TO_SIGN_IN}"
        )
    if code in _DENIED or _status_of(error) == 403:
        if is_anonymous():
            return PlaceUnavailable(
                f"{path}: no AWS credentials here, and it is not public: {_HOW_TO_SIGN_IN}"
            )
        return PermissionError(f"{path}: {why(error)}")
    return OSError(f"{path}: {why(error)}")


def why(error: BaseException | None) -> str:
    """Returns the service's or the connection's error message in one line, without credentials."""
    if code := code_of(error):
        status = _status_of(error)
        message = (getattr(error, "response", {}).get("Error", {}).get("Message")) or ""
        numbered = code if code == str(status) else f"{status} {code}"
        return one_line(f"{numbered}: {message}" if message else numbered)
    text = re.sub(r"(//)[^/@\s]*@", r"\1", str(error))
    return one_line(re.sub(r"\?[^\s\"']*", "", text) or type(error).__name__)
