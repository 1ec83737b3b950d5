"""Local files that appear whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # no such locks on this system: its leftovers are not recognised
    fcntl = None  # type: ignore[assignment]

# Files being written. The name is short, so that it fits wherever the final one does.
_TEMPORARY_PREFIX = ".cxr-embed-"
_TEMPORARY_SUFFIX = ".tmp"


def write_whole(path: str, data: bytes) -> None:
    """Writes a file, making its folder if missing; what has that name is replaced.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    target = Path(path)
    for attempt in range(3):
        temporary = _temporary_beside(target)
        try:
            _write_and_rename(temporary, target, data)
            return
        except FileNotFoundError:
            # No folder yet; or another run has just taken the file for a dead run's leftover.
            if attempt == 2:
                raise
            target.parent.mkdir(parents=True, exist_ok=True)


def _write_and_rename(temporary: Path, target: Path, data: bytes) -> None:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            # The lock lives as long as the writer, so a killed writer's file is recognised.
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
            rest = memoryview(data)
            while rest:  # a disk that is filling up takes a part
                rest = rest[file.write(rest) :]
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def open_whole(path: str) -> Iterator[IO[bytes]]:
    """Opens a file to be written piece by piece; what has that name is replaced at the end.

    What is written can be read back before the context ends.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(target)
    try:
        with temporary.open("x+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary_beside(target: Path) -> Path:
    return target.parent / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `write_whole` uses on the way."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


def remove_if_abandoned(path: str) -> bool:
    """Removes a temporary file whose writer is dead; returns whether it did."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(path).unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
