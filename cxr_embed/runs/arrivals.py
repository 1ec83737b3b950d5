"""What is new in a folder or a bucket that is listed again and again, for `--watch`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cxr_embed import members, storage
from cxr_embed.elements import ImageRef
from cxr_embed.storage.search_archives import ArchiveSearch, ImagesIn

# The state of a file that does not exist, or of an object, which appears as a whole.
_NONE = ""


class Arrivals:
    """Remembers the states of the files that earlier rounds have tried.

    A local file is complete if it has not changed since the last listing, or for `seconds`. An
    object in a bucket appears complete.

    Args:
        seconds: between two listings.
        finished: returns what an archive holds that need not be opened, for the first round.
    """

    def __init__(self, seconds: float, finished: ImagesIn) -> None:
        self._seconds, self._finished = seconds, finished
        self._tried: dict[str, str] = {}  # by path of an image
        self._tried_archives: dict[str, str] = {}
        self._failed_objects: set[str] = set()
        # By path of a file: states of the last listing and of this one, of files that may grow.
        self._before: dict[str, str] = {}
        self._growing: dict[str, str] = {}

    def begin_listing(self) -> ArchiveSearch:
        """Returns the archives' part of the next listing: unchanged ones are not opened again."""
        self._before, self._growing = self._growing, {}
        return ArchiveSearch(self._images_in)

    def _images_in(self, archive: str, state: str) -> list[str] | None:
        if self._tried_archives.get(archive) == state or not self._is_complete(archive, state):
            return []
        return self._finished(archive, state)

    def new(self, refs: Sequence[ImageRef], archives: ArchiveSearch) -> list[ImageRef]:
        """Returns the listed images that are new or have changed, and are complete.

        Args:
            refs: all images of the listing.
            archives: from `begin_listing`.
        """
        found = []
        states = storage.in_parallel(self._state, refs)
        for ref, state in zip(refs, states, strict=True):
            if state is None or self._tried.get(ref.path) == state:
                continue
            if ref.location or storage.is_remote(ref.path) or self._is_complete(ref.path, state):
                found.append(ref)
                self._tried[ref.path] = state
        self._tried_archives |= {name: facts.state for name, facts in archives.listed.items()}
        return found

    def failed(self, paths: Iterable[str]) -> None:
        """Notes images that failed. Those in buckets are tried again if the object changes."""
        for path in paths:
            if storage.is_remote(path) and not storage.is_member(path):
                self._failed_objects.add(path)
                self._tried[path] = _state_of(path)

    def _state(self, ref: ImageRef) -> str | None:
        """Returns the state of an image's file; None if it has disappeared."""
        if storage.is_member(ref.path):
            return _state_of(ref.path)
        if storage.is_remote(ref.path) and ref.path not in self._failed_objects:
            return _NONE
        state = _state_of(ref.path)
        return None if state == _NONE and not ref.is_listed else state

    def _is_complete(self, path: str, state: str) -> bool:
        if storage.is_remote(path) or state == _NONE or self._before.get(path) == state:
            return True
        try:
            age = time.time() - Path(path).stat().st_mtime
        except OSError:
            return False
        if age >= self._seconds:
            return True
        self._growing[path] = state
        return False


def _state_of(path: str) -> str:
    try:
        return storage.state(path)
    except (OSError, ValueError):
        return _NONE
