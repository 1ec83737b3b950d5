"""Records that were whole when a run wrote them or read them through, and have not changed since.

Reading 100,000 records through takes longer than a person waits to hear that all is done. Every
run notes what the file system said of each record that it wrote or checked: size, times and inode.
Where it still says the same, the record is the same, and nobody opens it. That is how `git status`
knows a file that it need not read.

What could fool it, and why it does not:

- Anything that writes to a file, replaces or touches it moves its change time, which no program can
  set back. Copies have inodes and change times of their own and are read through once.
- A machine that loses power may lose what it had not yet written to its disk, and some file systems
  then show a file of the right size full of zeros. A note says which boot of the machine it belongs
  to; after a new one every record is read through once.
- Another machine's notes are another boot's.

A disk that gives back other bytes than were written goes unseen; reading everything to find that
out is `cxr-embed verify`'s task.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cxr_embed import storage

# Files of a run's folder: records found standing and read through, and records written.
STANDING, WRITTEN = "checked_standing.csv", "checked_written.csv"


class Line(NamedTuple):
    """What is noted of a record.

    Attributes:
        record: its path below the output.
        image_id: its `image/id`.
        floats: the embedding's size.
        stamp: what the file system said of it.
    """

    record: str
    image_id: str
    floats: str
    stamp: str


def stamp_of(path: str) -> str | None:
    """Returns what the file system says of a local file, or None where it may not be relied on."""
    boot = _boot()
    if not boot:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116  several times as fast as pathlib's
    except OSError:
        return None
    return f"{boot}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}/{status.st_ino}"


def line_of(path: str, record: str, image_id: str, floats: int) -> Line | None:
    """Returns the line of a record that has just been written or read through."""
    stamp = stamp_of(path)
    return None if stamp is None else Line(record, image_id, str(floats), stamp)


def encode(lines: Iterable[Line]) -> bytes:
    """Returns lines as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def read(paths: Iterable[str]) -> dict[str, Line]:
    """Returns the lines of several ledgers by record; a later ledger's count.

    A ledger that cannot be read, and a line that is damaged, say nothing.
    """
    found: dict[str, Line] = {}
    for path in paths:
        try:
            text = storage.read_bytes(path).decode("utf-8", "surrogateescape")
        except OSError:
            continue
        with contextlib.suppress(csv.Error):
            for row in csv.reader(io.StringIO(text, newline="")):
                if len(row) == len(Line._fields):
                    found[row[0]] = Line(*row)
    return found


@functools.cache
def _boot() -> str:
    """Returns what tells this boot of this machine from any other; empty where none tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
