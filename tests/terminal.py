"""A terminal of its own for the errors and progress of a command."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Sequence


def run(command: Sequence[str], columns: int = 140) -> tuple[bytes, str]:
    """Runs a command to its good end; returns what it printed, and what the terminal was sent."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs,
        env=os.environ | {"COLUMNS": str(columns), "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        # A terminal holds few bytes: who writes more waits until they are read.
        with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
            while True:
                try:
                    shown += terminal.read(1 << 16)
                except OSError:  # the other side is closed
                    break
        printed, _ = process.communicate()
    assert process.returncode == 0, shown.decode()
    return printed, shown.decode()
