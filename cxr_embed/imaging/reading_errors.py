"""Distinguishes exceptions of damaged files from errors in this program.

While a file is parsed and decoded, its content decides what can go wrong, so that any exception
there means damage. Once its stored values are decoded and its header is checked, rendering works
on plain numbers: an exception there that is not a stated rejection is an error in this program.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator

import cv2

from cxr_embed.errors import ImageRejected, ImageSkipped, MachineFault
from cxr_embed.faults import machine_fault
from cxr_embed.outcomes import Stage

_log = logging.getLogger("cxr_embed")

# These have been decided already. Memory that runs out is a machine's fault (see `faults`).
_DECIDED = (ImageRejected, ImageSkipped, MachineFault, MemoryError)


@contextlib.contextmanager
def while_parsing(what: str) -> Iterator[None]:
    """Turns any unknown exception of the body into a rejection of the file.

    Args:
        what: what is parsed, for the message.

    Raises:
        ImageRejected: `decode_error`, without a cause: pydicom's messages quote the file.
        MachineFault: the exception shows that the machine lacks something.
    """
    try:
        yield
    except _DECIDED:
        raise
    except Exception as error:
        fault = machine_fault(error, Stage.DECODE)
        if fault is not None:
            raise fault from error
        raise ImageRejected("decode_error", f"damaged {what} ({type(error).__name__})") from None


@contextlib.contextmanager
def while_rendering() -> Iterator[None]:
    """Turns any unknown exception of the body into a rejection that names it as our error.

    The traceback is logged at level DEBUG by the logger `cxr_embed`.

    Raises:
        ImageRejected: `unexpected_error`, caused by the exception. Its detail holds the type and
            the place of the exception, but not its message, which may hold a value of the file.
        MemoryError: memory ran out.
    """
    try:
        yield
    except _DECIDED:
        raise
    except Exception as error:
        if isinstance(error, cv2.error) and getattr(error, "code", 0) == cv2.Error.StsNoMem:
            raise MemoryError from error
        detail = f"{type(error).__name__} at {_place(error)}"
        _log.debug("unexpected error while rendering: %s", detail, exc_info=error)
        raise ImageRejected("unexpected_error", detail) from error


def _place(error: Exception) -> str:
    """Returns the module and line of this package in which an exception was raised."""
    place = "an unknown place"
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.startswith("cxr_embed.") and module != __name__:
            place = f"{module}:{line}"
    return place
