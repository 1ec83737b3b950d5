"""What is logged, and the summary of a run."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING

from absl import logging as absl_logging

from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS

if TYPE_CHECKING:
    from cxr_embed.runs.result import Result


def set_up_logging(verbosity: int) -> None:
    """Sets what is logged on stderr.

    Args:
        verbosity: absl's. From 1 on, the package's own debugging messages are logged, such as the
            traceback of an unexpected error on an image.
    """
    _show_debugging(verbosity >= 1)
    # TensorFlow logs through absl; at its default level it logs what only its developers need.
    absl_logging.set_verbosity(verbosity or absl_logging.WARNING)
    if verbosity < 1:
        for name in ("pydicom", "tensorflow", "root"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # Beam logs the traceback of whatever ends a run, which is then one line at the end.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        # pydicom's warnings quote what is in a file: it may be a patient's.
        warnings.filterwarnings("ignore")


def _show_debugging(is_shown: bool) -> None:
    logger = logging.getLogger("cxr_embed")
    for handler in [h for h in logger.handlers if isinstance(h, _DebuggingHandler)]:
        logger.removeHandler(handler)
    logger.setLevel(logging.DEBUG if is_shown else logging.NOTSET)
    logger.propagate = not is_shown
    if is_shown:
        logger.addHandler(_DebuggingHandler())


class _DebuggingHandler(logging.StreamHandler):
    """Logs debugging messages on stderr."""


class Log:
    """Logs lines for the person who watches, on stderr.

    Args:
        quiet: log warnings only.

    Attributes:
        is_quiet: whether only warnings are logged.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.is_quiet = quiet

    def __call__(self, line: str) -> None:
        """Logs one line; a warning begins with `warning`."""
        if not self.is_quiet or line.startswith("warning"):
            print(line, file=sys.stderr, flush=True)

    def warnings(self, line: str) -> None:
        """Logs one line if it is a warning."""
        if line.startswith("warning"):
            self(line)


def print_summary(result: Result, output: str = "") -> None:
    """Prints what came of a run.

    Args:
        result: the result.
        output: the name of its output, if the run has several.
    """
    counts = result.counts
    if output:
        print(f"output         {output}")
    if result.handed_over:
        print(f"handed over    to {result.handed_over}")
        print(f"already there  {counts['already_there']}")
        print(f"tables         {result.folder}, once it has run")
        return
    print(f"embedded       {counts['embedded']}")
    print(f"already there  {counts['already_there']}")
    _print_reasons("skipped", result.skipped, SKIP_REASONS)
    _print_reasons("failed", result.failed, {k: v.meaning for k, v in FAILURE_REASONS.items()})
    if counts["not_attempted"]:
        print(f"not attempted  {counts['not_attempted']}")
    print(f"speed          {result.images_per_second:.2f} images/s over {result.seconds:.1f} s")
    print(f"records        {result.folder.rpartition('/_runs/')[0]}")
    print(f"tables         {result.folder}")
    if result.failed:
        print(f"failure table  {result.folder}/failures.csv")


def status_of(result: Result, skip_errors: bool) -> int:
    """Returns the exit status of a run; prints why it ended early.

    Args:
        result: the result.
        skip_errors: whether failed images do not matter.

    Raises:
        BaseException: the exception that ended the run.
    """
    if result.ended == "interrupted":
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 3
    if result.ended == "max_failures":
        print("stopped early: more images failed than --max_failures allows", file=sys.stderr)
        return 1
    if result.error is not None:
        raise result.error
    if result.handed_over:
        return 0
    if result.counts["not_attempted"]:
        print(f"{result.counts['not_attempted']} images have no outcome", file=sys.stderr)
        return 3
    return 1 if result.failed and not skip_errors else 0


def _print_reasons(title: str, reasons: dict[str, int], meanings: dict[str, str]) -> None:
    print(f"{title:<14} {sum(reasons.values())}")
    for reason, count in reasons.items():
        print(f"  {count} {reason}: {meanings[reason]}")
