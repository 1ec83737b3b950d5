"""Lists, reads and writes files in local folders and in buckets through one set of functions.

The rest of the package handles paths as strings and calls these functions.
"""

from __future__ import annotations

from cxr_embed.storage.addresses import (
    PLACES,
    check_address,
    check_place,
    is_archive,
    is_member,
    is_on_disk,
    is_remote,
    join,
    start_of,
)
from cxr_embed.storage.files import BadMember, Entry, FileTooLarge, OtherContent, StoredFile
from cxr_embed.storage.parallel import in_parallel
from cxr_embed.storage.places import (
    download,
    exists,
    list_files,
    list_paths,
    matches,
    open_whole,
    read_bytes,
    read_file,
    read_range,
    read_start,
    reading_order,
    remove,
    size,
    state,
    why_not_writable,
    write_whole,
)
from cxr_embed.storage.settings import Settings, configure, settings
from cxr_embed.storage.whole_files import is_temporary, remove_if_abandoned

__all__ = [
    "PLACES",
    "BadMember",
    "Entry",
    "FileTooLarge",
    "OtherContent",
    "Settings",
    "StoredFile",
    "check_address",
    "check_place",
    "configure",
    "download",
    "exists",
    "in_parallel",
    "is_archive",
    "is_member",
    "is_on_disk",
    "is_remote",
    "is_temporary",
    "join",
    "list_files",
    "list_paths",
    "matches",
    "open_whole",
    "read_bytes",
    "read_file",
    "read_range",
    "read_start",
    "reading_order",
    "remove",
    "remove_if_abandoned",
    "settings",
    "size",
    "start_of",
    "state",
    "why_not_writable",
    "write_whole",
]  # fmt: skip
