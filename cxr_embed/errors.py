"""The few exceptions that cross from one room to another."""

from __future__ import annotations

from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS


def one_line(text: object) -> str:
    """Returns `text` on one line, white space folded, cut to 300 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else line[:297] + "..."


class UsageError(Exception):
    """A mistake that the person at the keyboard can mend; ends the program with status 2.

    The message is one line: what is wrong, where, and what to do.
    """


class MachineFault(Exception):
    """Something that every image would meet: a full disk, no memory, a lost device.

    It ends the work at once with status 3, and is never written down as an image's failure. On a
    worker elsewhere it fails the bundle, which the runner then gives to another worker.

    The message is one line: what is wrong, where, and what to do.
    """


class PlaceUnavailable(OSError):
    """A storage service that did not answer, or did not let us in, after all retries."""


class ImageRejected(Exception):
    """One image that cannot become an embedding. It never ends the run.

    Args:
        reason: a key of `cxr_embed.outcomes.FAILURE_REASONS`.
        detail: one line for a person. It names tags, sizes and rules, never the value of a text
            element: those may identify a patient.

    Attributes:
        steps: what had been done to the stored values, for people who look into one file.
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
    """One image that is left out on purpose.

    Args:
        reason: a key of `cxr_embed.outcomes.SKIP_REASONS`.
        detail: one line for a person.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in SKIP_REASONS:
            raise KeyError(reason)
        self.reason = reason
        self.detail = one_line(detail)
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)
