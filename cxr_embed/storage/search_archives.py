"""Finds images in archives, and remembers which archives were listed and where members lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cxr_embed import file_types, members, storage
from cxr_embed.errors import PlaceUnavailable, UsageError
from cxr_embed.storage.addresses import ARCHIVES

# Files that macOS adds: the other half of each file, in a folder of its own.
_RESOURCE_FORKS = "__MACOSX/"


class ListedArchive(NamedTuple):
    """An archive whose members are known.

    Attributes:
        state: see `storage.state`.
        members: `digest` of the addresses of the members that may be images.
    """

    state: str
    members: str


def digest(addresses: Iterable[str]) -> str:
    """Returns the SHA-256 of addresses in any order."""
    found = hashlib.sha256()
    for address in sorted(addresses):
        found.update(address.encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()


# Receives an archive's path and its present state. Returns the addresses of its images if earlier
# runs have embedded them all, or None if the archive has to be listed.
ImagesIn = Callable[[str, str], list[str] | None]


# Receives an archive that cannot be listed, its state, and the error.
PassOver = Callable[[str, str, Exception], None]


def _unknown(archive: str, state: str) -> None:
    del archive, state


class ArchiveSearch:
    """Lists archives during one search.

    Args:
        known: returns what an archive holds that need not be opened.
        pass_over: is called with an archive that is damaged or that has two members of one name,
            which is then left out; by default such an archive is an error.

    Attributes:
        locations: where members lie, by their addresses; those of known archives are left out.
        listed: the archives that were opened.
    """

    def __init__(self, known: ImagesIn = _unknown, pass_over: PassOver | None = None) -> None:
        self._known, self._pass_over = known, pass_over
        self.locations: dict[str, str] = {}
        self.listed: dict[str, ListedArchive] = {}

    def expand(self, paths: Iterable[str], is_wanted: Callable[[str], bool]) -> Iterator[str]:
        """Yields paths, and in place of each archive the members that may be images."""
        for path in paths:
            if members.is_archive(path):
                yield from self.images_in(path, is_wanted)
            else:
                yield path

    def images_in(self, archive: str, is_wanted: Callable[[str], bool]) -> list[str]:
        """Returns the addresses of an archive's members that may be images, sorted.

        Args:
            archive: its path.
            is_wanted: whether a name may be that of an image.

        Raises:
            OSError: the archive cannot be read, or is damaged so that its members are unknown.
            UsageError: two members have the same name.
        """
        try:
            state = storage.state(archive)
        except FileNotFoundError:
            if self._pass_over is None:
                raise
            return []  # removed since it was found
        known = self._known(archive, state)
        if known is not None:
            return sorted(known)
        try:
            found = _members(archive, is_wanted)
        except PlaceUnavailable:
            raise
        except (OSError, UsageError) as error:
            if self._pass_over is None:
                raise
            self._pass_over(archive, state, error)
            return []
        self.locations |= found
        self.listed[archive] = ListedArchive(state, digest(found))
        return sorted(found)


def _members(archive: str, is_wanted: Callable[[str], bool]) -> dict[str, str]:
    """Returns the locations of the members that may be images, by their addresses."""
    found: dict[str, str] = {}
    for name, location in ARCHIVES.list_members(archive):
        if not is_wanted(name) or name.startswith(_RESOURCE_FORKS):
            continue
        address = members.join(archive, name)
        if address in found and not file_types.OTHER_NAME.search(name):
            raise UsageError(
                f"{archive} holds two members named {name}: remove or rename one of them"
            )
        found[address] = location
    return found
