"""Reads and writes `SHA256SUMS.txt` in PhysioNet's layout, which `sha256sum -c` also reads.

Each file has one line with its digest, one space, and its path relative to the list's folder. The
lines are sorted by path.
Source: PhysioNet's published data sets, e.g. https://physionet.org/content/mimic-cxr/2.0.0/.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from cxr_embed import storage
from cxr_embed.errors import UsageError, cannot_be_read

SUMS_NAME = "SHA256SUMS.txt"

# sha256sum itself writes two spaces, or a space and an asterisk.
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]?(.+)")


def digest(path: str) -> tuple[str, int]:
    """Returns a file's SHA-256 in hexadecimal and its size in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if not storage.is_on_disk(path):
        data = storage.read_bytes(path)
        return hashlib.sha256(data).hexdigest(), len(data)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def write_sums(folder: str, digests: Mapping[str, str]) -> None:
    """Writes the list.

    Args:
        folder: folder of the list.
        digests: hexadecimal SHA-256 by path below the folder.
    """
    text = "".join(f"{digests[path]} {path}\n" for path in sorted(digests))
    data = text.encode("utf-8", "surrogateescape")
    storage.write_whole(storage.join(folder, SUMS_NAME), data, replace=True)


def read_sums(folder: str) -> dict[str, str] | None:
    """Returns digests by path below the folder, or None if there is no list.

    Raises:
        UsageError: the list cannot be read or parsed.
    """
    path = storage.join(folder, SUMS_NAME)
    try:
        lines = storage.read_bytes(path).decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_be_read(path, error) from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UsageError(f"{path}, line {number}: not a SHA-256 digest and a path")
        found[match[2].removeprefix("./")] = match[1].lower()
    return found
