"""Writes local files atomically: under a temporary name, which is then renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # without file locks, abandoned temporary files are not recognised
    fcntl = None  # type: ignore[assignment]

# Names of files being written. They are short, so that they fit wherever the final name fits.
_TEMPORARY_PREFIX = ".cxr-embed-"
_TEMPORARY_SUFFIX = ".tmp"


def write_whole(path: str, data: bytes) -> None:
    """Writes a file and creates its folder if missing; an existing file is replaced.

    Raises:
        OSError: the file cannot be written. No partial file remains.
    """
    target = Path(path)
    for attempt in range(3):
        temporary = _temporary_beside(target)
        try:
            _write_and_rename(temporary, target, data)
            return
        except FileNotFoundError:
            # The folder does not exist, or another run has removed the file as abandoned before
            # this process locked it.
            if attempt == 2:
                raise
            target.parent.mkdir(parents=True, exist_ok=True)


def _write_and_rename(temporary: Path, target: Path, data: bytes) -> None:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            # The lock ends with the process, so the file of a killed writer is recognised.
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
            rest = memoryview(data)
            while rest:  # a nearly full disk may accept a part
                rest = rest[file.write(rest) :]
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def open_whole(path: str) -> Iterator[IO[bytes]]:
    """Opens a file that is written piece by piece; an existing file is replaced at the end.

    The written content can be read back before the context ends.

    Raises:
        OSError: the file cannot be written. No partial file remains.
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
    """Whether a file name is a temporary name of `write_whole` or `open_whole`."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


def remove_if_abandoned(path: str) -> bool:
    """Removes a temporary file if its writer is dead; returns whether it was removed."""
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
