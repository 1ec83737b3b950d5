"""The state of a local file: size, times and inode, which show that a file has not changed.

Reading all records of a large output is slow. Each run stores the state of the records that it
wrote or checked; a record with the same state has not changed and is not read again. `git status`
uses the same method.

- Writing to a file, replacing it or touching it updates its change time, which no program can set.
  A copy has another inode and another change time and is read once.
- After a power loss, some file systems show a file of the right size that is full of zeros. The
  state therefore includes the boot id of the machine. After a reboot, or on another machine, every
  record is read once.

A disk that silently returns wrong bytes is not detected: `cxr-embed verify` reads all records.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path


def file_state(path: str) -> str:
    """Returns the state of a local file; empty if it is not available, as in a bucket."""
    boot = _boot()
    if not boot:
        return ""
    try:
        status = os.stat(path)  # noqa: PTH116  several times as fast as pathlib's
    except OSError:
        return ""
    return f"{boot}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}/{status.st_ino}"


@functools.cache
def _boot() -> str:
    """Returns the boot id of this machine; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
