"""What is new in an input that is listed again and again, for `--watch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cxr_embed import members, storage
from cxr_embed.elements import ImageRef
from cxr_embed.errors import PlaceUnavailable, Unreachable
from cxr_embed.storage.search_archives import ArchiveSearch, ImagesIn

# In the first listing, a local file is complete if it has not changed for as long.
_SETTLED_SECONDS = 60.0

_TASKS = 64

# The state of a file that does not exist, or of an object that has not been tried.
_NONE = ""


class Arrivals:
    """Remembers which images have a record, and the states of those that earlier rounds tried.

    An image with a record is not looked at again. One without, which failed or was skipped, is
    tried again if its file changes; if its storage service did not answer, it is tried again after
    1, 2, 4, ... further rounds.

    A local file is complete if two listings in a row find it with the same size and modification
    time. An object in a bucket and an instance in a store appear complete.

    Args:
        seconds: between two listings.
        finished: returns what an archive holds that need not be opened.
        log: logs one line for the user.

    Attributes:
        unreadable: archives that cannot be listed, with their states.
    """

    def __init__(self, seconds: float, finished: ImagesIn, log: Callable[[str], None]) -> None:
        self._settled_seconds = max(seconds, _SETTLED_SECONDS)
        self._finished, self._log = finished, log
        self._round = 0
        self._with_record: set[str] = set()
        self._tried: dict[str, str] = {}  # states by path
        self._later: dict[str, tuple[int, int]] = {}  # (round, tries) by path
        self._archives: dict[str, str] = {}  # states of archives that were tried
        self.unreadable: dict[str, str] = {}
        # States of local files in the last listing and in this one.
        self._before: dict[str, str] = {}
        self._now: dict[str, str] = {}
        # States in this listing: of archives, and of the images that it found to be new.
        self._of_archives: dict[str, str] = {}
        self._of_new: dict[str, str] = {}

    def begin_listing(self) -> ArchiveSearch:
        """Returns the archives' part of the next listing: unchanged ones are not opened again."""
        self._round += 1
        self._before, self._now = self._now, {}
        self._of_archives, self._of_new = {}, {}
        # A damaged archive ends the first round before anything runs, as without `--watch`.
        return ArchiveSearch(self._images_in, None if self._round == 1 else self._pass_over)

    def _images_in(self, archive: str, state: str) -> list[str] | None:
        if state in (self._archives.get(archive), self.unreadable.get(archive)):
            return []
        if not self._is_complete(archive, state):
            return []
        self.unreadable.pop(archive, None)
        self._of_archives[archive] = state
        return self._finished(archive, state)

    def _pass_over(self, archive: str, state: str, error: Exception) -> None:
        self.unreadable[archive] = state
        self._log(f"warning: {error}; left out until it changes")

    def new(self, refs: Sequence[ImageRef]) -> list[ImageRef]:
        """Returns the listed images that are new, or have changed, and are complete.

        Args:
            refs: all images of the listing.

        Raises:
            Unreachable: a storage service does not answer.
        """
        refs = [ref for ref in refs if ref.path not in self._with_record]
        try:
            states = list(self._states(refs))
        except PlaceUnavailable as error:
            raise Unreachable(f"the input cannot be read: {error}") from error
        found = []
        for ref, state in zip(refs, states, strict=True):
            if state is not None and self._is_due(ref.path, state):
                self._of_new[ref.path] = state
                found.append(ref)
        return found

    def _is_due(self, path: str, state: str) -> bool:
        if path in self._later:
            return self._round >= self._later[path][0]
        if self._tried.get(path) == state:
            return False
        return self._archive_of(path) in self._of_archives or self._is_complete(path, state)

    def conclude(self, refs: Iterable[ImageRef], without_record: Mapping[str, str]) -> None:
        """Ends a round in which each image got an outcome.

        Args:
            refs: the images of `new`.
            without_record: the reasons of those that failed or were skipped, by path.
        """
        for ref in refs:
            path, reason = ref.path, without_record.get(ref.path)
            _, tries = self._later.pop(path, (0, 0))
            if reason is None:
                self._with_record.add(path)
                self._tried.pop(path, None)
            elif reason == "unreachable":
                self._later[path] = (self._round + 2 ** min(tries, 10), tries + 1)
                self._of_archives.pop(self._archive_of(path), None)  # it will be listed again
            else:
                state = self._of_new[path]
                self._tried[path] = state if state != _NONE else _state_of(path)
        self._archives |= self._of_archives

    def _states(self, refs: Sequence[ImageRef]) -> Iterator[str | None]:
        # A few large tasks: submitting a task takes longer than looking at a local file.
        step = 1 + len(refs) // _TASKS
        parts = [refs[start : start + step] for start in range(0, len(refs), step)]
        for states in storage.in_parallel(lambda part: [self._state(r) for r in part], parts):
            yield from states

    def _state(self, ref: ImageRef) -> str | None:
        """Returns the state of an image's file; None if the file has disappeared."""
        path = ref.path
        if archive := self._archive_of(path):
            if archive not in self._of_archives:  # a member that is named in a list
                self._of_archives[archive] = _state_of(archive)
            return self._of_archives[archive]
        if path in self._later or (storage.is_remote(path) and path not in self._tried):
            return _NONE
        try:
            return storage.state(path)
        except FileNotFoundError:
            # An image that the user named fails; one that a listing found has just been removed.
            return _NONE if ref.is_listed else None
        except PlaceUnavailable:
            raise
        except (OSError, ValueError):
            return self._tried.get(path, _NONE)

    def _is_complete(self, path: str, state: str) -> bool:
        if storage.is_remote(path) or state == _NONE:
            return True
        self._now[path] = state
        if self._round > 1:
            return self._before.get(path) == state
        try:
            return time.time() - Path(path).stat().st_mtime >= self._settled_seconds
        except OSError:
            return False

    @staticmethod
    def _archive_of(path: str) -> str:
        """Returns the archive of a member; empty for any other path."""
        found = members.split(path) if storage.is_member(path) else None
        return "" if found is None else found[0]


def _state_of(path: str) -> str:
    try:
        return storage.state(path)
    except (OSError, ValueError):
        return _NONE
