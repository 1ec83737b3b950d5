"""The retries of all storage services: with growing pauses, until the retry time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cxr_embed.errors import PlaceUnavailable
from cxr_embed.storage.settings import settings

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 20.0

_Result = TypeVar("_Result")


class Corrupt(Exception):
    """The received bytes are not all, or do not match the checksum of the file."""


def retry(is_passing: Callable[[BaseException], bool]) -> Any:
    """Returns the retry policy of every request, as Google's clients take it.

    Args:
        is_passing: whether an exception may not be raised again by the same request.
    """
    from google.api_core.retry import Retry

    return Retry(
        predicate=is_passing,
        initial=_FIRST_PAUSE_SECONDS,
        maximum=_LONGEST_PAUSE_SECONDS,
        multiplier=2.0,
        timeout=settings().retry_seconds,
    )


def retried(attempt: Callable[[], _Result], is_passing: Callable[[BaseException], bool]) -> _Result:
    """Calls `attempt` until it succeeds, raises a permanent error, or the retry time is over.

    Raises:
        google.api_core.exceptions.RetryError: the retry time is over.
        Exception: a permanent error, unchanged.
    """
    result: _Result = retry(is_passing)(attempt)()
    return result


def gave_up(path: str, cause: BaseException | None, why: str) -> OSError:
    """Returns the exception for a file whose retry time is over.

    Args:
        path: the file.
        cause: the last error.
        why: its text.
    """
    text = f"{path}: gave up after {settings().retry_seconds:g} s: {why}"
    # Wrong bytes are the fault of this file; everything else would happen to any file.
    return OSError(text) if isinstance(cause, Corrupt) else PlaceUnavailable(text)
