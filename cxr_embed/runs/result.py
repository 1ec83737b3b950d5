"""The result of a run: its counts, its time, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Result:
    """One run, after it has ended.

    Attributes:
        folder: folder of the tables and the manifest.
        counts: images `found`, `embedded`, `already_there`, `not_attempted`.
        skipped: images by reason.
        failed: images by reason.
        seconds: wall time of the graph without model loading.
        ended: why the run ended: `done`, `handed_over`, `interrupted`, `max_failures`,
            `machine_fault` or `error`.
        error: the exception that ended the run, if any.
        handed_over: the template or the job that received the images, if this process does not
            wait for them.
    """

    folder: str
    counts: dict[str, int]
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    ended: str = "done"
    error: BaseException | None = None
    handed_over: str = ""

    @property
    def images_per_second(self) -> float:
        """Images with an outcome of any kind per second."""
        ended = self.counts["embedded"] + sum(self.failed.values()) + sum(self.skipped.values())
        return ended / self.seconds if self.seconds else 0.0
