"""The settings that the storage services of a process share."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cxr_embed.errors import UsageError

# Kept in the environment, so that child processes inherit them.
BILLING_PROJECT_VARIABLE = "CXR_EMBED_GCS_BILLING_PROJECT"
RETRY_SECONDS_VARIABLE = "CXR_EMBED_RETRY_SECONDS"

# Before other services than Google's were supported.
_OLD_RETRY_SECONDS_VARIABLE = "CXR_EMBED_GCS_RETRY_SECONDS"

_RETRY_SECONDS = 180.0

# Variables that say where a service is. Workers get them, unless their machines set them. Those
# that hold credentials are never sent: each machine has its own.
WHERE = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings of the storage services; can be pickled for workers.

    Attributes:
        billing_project: the Google Cloud project that pays for requests and traffic; required for
            requester-pays buckets.
        retry_seconds: how long a read, a write or a page of a listing is retried while the service
            is busy or unavailable.
        where: names and values of environment variables that say where a service is.
    """

    billing_project: str | None = None
    retry_seconds: float = _RETRY_SECONDS
    where: tuple[tuple[str, str], ...] = ()


def configure(settings: Settings) -> None:
    """Configures the storage services of this process and its child processes."""
    os.environ[RETRY_SECONDS_VARIABLE] = str(settings.retry_seconds)
    if settings.billing_project:
        os.environ[BILLING_PROJECT_VARIABLE] = settings.billing_project
    else:
        os.environ.pop(BILLING_PROJECT_VARIABLE, None)
    for name, value in settings.where:
        os.environ[name] = os.environ.get(name) or value


def settings() -> Settings:
    """Returns the settings from `configure` or from the environment.

    Raises:
        UsageError: the seconds in the environment are not a number.
    """
    seconds: str | float = _RETRY_SECONDS
    for name in (RETRY_SECONDS_VARIABLE, _OLD_RETRY_SECONDS_VARIABLE):
        if os.environ.get(name):
            seconds = os.environ[name]
            break
    try:
        seconds = float(seconds)
    except ValueError as error:
        raise UsageError(f"{name}={seconds} is not a number") from error
    where = tuple(
        (variable, value) for variable in WHERE
        if (value := os.environ.get(variable)) and "@" not in value
    )  # fmt: skip
    return Settings(os.environ.get(BILLING_PROJECT_VARIABLE) or None, seconds, where)
