"""The exceptions that all rooms of the package share."""

from __future__ import annotations

from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS


def one_line(text: object) -> str:
    """Returns `text` on one line with single spaces, cut to 300 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else line[:297] + "..."


class UsageError(Exception):
    """A mistake that the user can correct; the program ends with status 2.

    The message is one line: what is wrong, where, and what to do.
    """


class Unreachable(UsageError):
    """An input or an output that cannot be listed. With `--watch` this may be temporary."""


class NotFetched(UsageError):
    """A model that cannot be downloaded. On a worker it is a machine's fault."""


class MachineFault(Exception):
    """A fault that affects all images: a full disk, no memory, a lost device.

    The program ends at once with status 3, and the fault is never recorded as an image's failure.
    On a remote worker it fails the bundle, which the runner retries on another worker.

    The message is one line: what is wrong, where, and what to do.
    """


class PlaceLost(MachineFault):
    """A storage place that cannot be reached. The same work may succeed later."""


class PlaceUnavailable(OSError):
    """A storage service did not answer or rejected the credentials, after all retries."""


class PlaceGone(PlaceUnavailable):
    """A storage service from which no other file can be read either: the run ends at once."""


class ImageRejected(Exception):
    """An image that cannot be embedded. It never ends the run.

    Args:
        reason: a key of `cxr_embed.outcomes.FAILURE_REASONS`.
        detail: one line of text. It contains tags, sizes and rules, never the value of a text
            element, which may identify a patient.

    Attributes:
        steps: processing steps before the failure, for `cxr-embed inspect`.
    """

    steps: tuple[str, ...] = ()

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.stage = FAILURE_REASONS[reason].stage
        self.detail = one_line(detail)
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)

    def __reduce__(self) -> tuple[type[ImageRejected], tuple[str, str]]:
        return ImageRejected, (self.reason, self.detail)


class ImageSkipped(Exception):
    """An image that is skipped on purpose.

    Args:
        reason: a key of `cxr_embed.outcomes.SKIP_REASONS`.
        detail: one line of text.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in SKIP_REASONS:
            raise KeyError(reason)
        self.reason = reason
        self.detail = one_line(detail)
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)


def cannot_be_read(what: str, error: OSError) -> UsageError:
    """Returns the error of a file that the user has named, and that cannot be read."""
    return UsageError(f"{what} cannot be read: {error.strerror or error}")


def cannot_be_written(what: str, error: OSError) -> UsageError:
    """Returns the error of a file that the user has named, and that cannot be written."""
    return UsageError(f"{what} cannot be written: {error.strerror or error}")
