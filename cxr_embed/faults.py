"""Tells a machine's fault from an image's: the one place where that is decided.

An image's fault is what one image can cause: it becomes a row of `failures.csv`. A machine's fault
is what would affect any image: it becomes a `MachineFault`, and the work ends.
"""

from __future__ import annotations

import errno
import threading

from cxr_embed.errors import MachineFault, PlaceGone, PlaceLost, PlaceUnavailable, one_line
from cxr_embed.outcomes import Stage

# Images that may fail one after the other, none of them succeeding, before the machine is blamed.
STREAK = 16

# No image has these to itself, whatever is being done.
_EXHAUSTED = {
    errno.ENOSPC: "no space left: free some, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
    errno.EMFILE: "this process has no file handles left: raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has no file handles left: close other programs",
    errno.ENOMEM: "no memory left: use fewer --decode_threads, or a machine with more memory",
    errno.ENOTCONN: "the mounted file system is gone: mount it again, then run the same command",
}

# Writing fails with these because of the record's own name.
_BAD_NAMES = {
    errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip

# TensorFlow's errors (`tf.errors`) that speak of a device or of the process, not of an input.
# By name: naming the classes would import TensorFlow.
_DEVICE_ERRORS = {
    "ResourceExhaustedError", "InternalError", "UnavailableError", "AbortedError",
    "FailedPreconditionError", "DataLossError", "CancelledError",
}  # fmt: skip

# ONNX Runtime has one exception for all that fails in a call; its text tells them apart.
_RUNTIME_FAULTS = ("failed to allocate memory", "bad allocation", "cuda failure", "cudnn", "cublas")

# Google's client errors (`google.api_core.exceptions`) that any request would meet.
_SERVICE_ERRORS = {"Unauthorized", "Forbidden", "NotFound", "RefreshError"}


def machine_fault(error: BaseException, stage: Stage, place: str = "") -> MachineFault | None:
    """Returns the machine's fault that an exception shows, or None where it is the image's.

    Args:
        error: what was raised.
        stage: what was being done.
        place: the path or model it was done with, for the message.
    """
    if isinstance(error, MachineFault):
        return error
    if isinstance(error, PlaceGone):
        return PlaceLost(one_line(error))
    what = _exhausted(error)
    if what is None and stage is Stage.INFER:
        what = _model_fault(error)
    if what is None and stage is Stage.WRITE and isinstance(error, OSError):
        what = _write_fault(error)
    if what is None:
        return None
    kind = PlaceLost if is_unreachable(error) else MachineFault
    return kind(f"{place}: {what}" if place else what)


def is_unreachable(error: BaseException) -> bool:
    """Whether an exception shows that a storage place cannot be reached."""
    is_unmounted = isinstance(error, OSError) and error.errno == errno.ENOTCONN
    return is_unmounted or isinstance(error, PlaceUnavailable)


def _exhausted(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "no memory left: use a smaller --batch_size, fewer --decode_threads or more memory"
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return _EXHAUSTED[error.errno]
    return None


def _model_fault(error: BaseException) -> str | None:
    for kind in type(error).__mro__:
        module = kind.__module__.partition(".")[0]
        if (module == "tensorflow" and kind.__name__ in _DEVICE_ERRORS) or (
            module == "google" and kind.__name__ in _SERVICE_ERRORS
        ):
            return f"the model cannot run: {kind.__name__}: {one_line(error)}"
        if module == "onnxruntime" and any(each in str(error).lower() for each in _RUNTIME_FAULTS):
            return f"the model cannot run; try a smaller --batch_size: {one_line(error)}"
    return None


def _write_fault(error: OSError) -> str | None:
    """Writing differs from reading: only the record's name is the image's own."""
    detail = one_line(error.strerror or error)
    if error.errno is not None:
        return None if error.errno in _BAD_NAMES else f"cannot be written: {detail}"
    # Errors of services carry no number. What they refuse for other reasons is this one object.
    if isinstance(error, PlaceUnavailable | PermissionError | FileNotFoundError):
        return f"cannot be written: {detail}"
    return None


class Streak:
    """Counts failures of one kind in a row; thread-safe.

    Args:
        what: what fails, for the message.
        length: failures in a row that are too many.
        fault: what is raised then.
    """

    def __init__(
        self, what: str, length: int = STREAK, fault: type[MachineFault] = MachineFault
    ) -> None:
        self._what, self._length, self._fault = what, length, fault
        self._lock = threading.Lock()
        self._count = 0

    def succeeded(self) -> None:
        """Ends the streak."""
        with self._lock:
            self._count = 0

    def failed(self, detail: object) -> None:
        """Counts one more failure.

        Raises:
            MachineFault: it is one too many.
        """
        with self._lock:
            self._count += 1
            if self._count >= self._length:
                raise self._fault(
                    f"{self._what} failed on {self._count} images in a row, the last time with: "
                    f"{one_line(detail)}"
                )
