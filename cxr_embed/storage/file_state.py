"""What the file system says of a file, by which a later run knows that it has not changed.

Reading 100,000 records takes longer than a user waits to hear that all are done. Each run notes the
size, times and inode of the records that it wrote or checked; where they are the same, the record
is the same and need not be opened. `git status` does likewise.

- Whatever writes to a file, replaces or touches it changes its change time, which no program can
  set. A copy has an inode and a change time of its own and is read once.
- A machine that loses power may lose what it had not yet written to its disk, and some file systems
  then show a file of the right size full of zeros. So the state names the boot of the machine, and
  after another boot, or on another machine, every record is read once.

A disk that returns other bytes than were written is not noticed: `cxr-embed verify` reads them all.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path


def file_state(path: str) -> str:
    """Returns the state of a local file; empty where there is none to rely on, as in a bucket."""
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
    """Returns what identifies this boot of this machine; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
