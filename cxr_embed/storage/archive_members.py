"""What the archives of all kinds share: members, refusals, and reads with a limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cxr_embed.members import REFUSED
from cxr_embed.storage.files import START_BYTES, Admit, BadMember, FileTooLarge

# Returns so many bytes of a file from an offset, fewer only at the file's end.
ReadRange = Callable[[int, int], bytes]

# Keys of `outcomes.FAILURE_REASONS`.
DAMAGED, ENCRYPTED = "damaged_member", "encrypted_member"
UNSAFE, UNSUPPORTED = "unsafe_member", "unsupported_member"

# A smaller member is read whole, in one request. Of a larger one the first bytes are judged first.
_WHOLE = 32 << 20

_DRIVE = re.compile(r"[A-Za-z]:")


class Member(NamedTuple):
    """A member of an archive that is neither a folder nor a link to one.

    Attributes:
        name: its path in the archive.
        location: where it lies in the archive, as text for `archives.read_member`.
    """

    name: str
    location: str


def cleaned(raw: str) -> tuple[str, str]:
    """Returns a member's name without `.` and empty parts, and why it is unsafe, if it is.

    An unsafe name is returned as it is, except for NULs.
    """
    if "\0" in raw:
        return raw.replace("\0", "\N{REPLACEMENT CHARACTER}"), "a NUL in its name"
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if raw.startswith(("/", "\\")) or _DRIVE.match(raw):
        return raw, "an absolute path"
    if ".." in parts or ".." in raw.split("\\"):
        return raw, "a path with .."
    return ("/".join(parts), "") if parts else (raw, "it has no name")


def refused(reason: str, detail: str) -> str:
    """Returns the location of a member that is not read."""
    return f"{REFUSED}{reason}:{detail}"


def raise_if_refused(path: str, location: str) -> None:
    """Raises BadMember for a location from `refused`."""
    if location.startswith(REFUSED):
        reason, _, detail = location.removeprefix(REFUSED).partition(":")
        raise BadMember(path, reason, detail)


def read_pieces(read: ReadRange, path: str, size: int, admit: Admit | None) -> bytes:
    """Reads a member's bytes: in one piece, or in two if it is large.

    Args:
        read: reads a part of the member.
        path: the member's address, for messages.
        size: of the member in bytes.
        admit: see `files.Admit`.

    Raises:
        BadMember: the archive ends before the member does.
        FileTooLarge: the member is larger than `admit` allows.
        OSError: the archive cannot be read.
    """
    data = read(0, size if size <= _WHOLE else START_BYTES)
    if admit is not None:
        limit = admit(data[:START_BYTES])
        if size > limit:
            raise FileTooLarge(path, size, limit)
    if len(data) < size:
        data += read(len(data), size - len(data))
    if len(data) < size:
        raise BadMember(path, DAMAGED, f"the archive ends after {len(data)} of its {size} bytes")
    return data
