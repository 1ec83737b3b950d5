"""The addresses of archive members: `path/to/a.zip!/p10/1.dcm` is the member `p10/1.dcm`.

An archive is recognised by its name. The first `!/` after such a name separates archive and member.
"""

from __future__ import annotations

import re

_SUFFIX = r"\.(?:zip|tar|tar\.gz|tgz)"
_ARCHIVE = re.compile(rf"{_SUFFIX}$", re.IGNORECASE)
_MEMBER = re.compile(rf"(.+?{_SUFFIX})!/(.*)", re.IGNORECASE | re.DOTALL)

# A member's location begins with this if it is not to be read.
REFUSED = "refused:"


def is_archive(path: str) -> bool:
    """Whether a path has the name of an archive: `.zip`, `.tar`, `.tar.gz` or `.tgz`."""
    return _ARCHIVE.search(path) is not None


def split(path: str) -> tuple[str, str] | None:
    """Returns the archive and the member's name, which may be empty; None for any other path."""
    found = _MEMBER.fullmatch(path)
    return None if found is None else (found[1], found[2])


def join(archive: str, name: str) -> str:
    """Returns the address of a member."""
    return f"{archive}!/{name}"


def as_folder(path: str) -> str:
    """Returns an address with the archive as a folder of its name: `a.zip/p10/1.dcm`."""
    found = split(path)
    return path if found is None else f"{found[0]}/{found[1]}"
