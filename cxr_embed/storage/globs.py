"""Matches globs on disks and in buckets as Python's `glob` does with `recursive=True`.

`*`, `?`, `[a-z]` and `[!a-z]` match within one name. A name `**` matches zero or more folders. A
name that begins with a dot is matched only by a part of the pattern that begins with a dot.

Python's `glob` cannot be used: it silently omits folders that it cannot list, and does not support
buckets. google-cloud-storage's `match_glob` cannot be used either: its `**` need not be a whole
name, it has braces, and it treats hidden files like other files.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import NamedTuple

_MAGIC = re.compile(r"[*?\[]")

# Possible numbers of matched parts of the pattern: several, since `**` may continue or end.
Progress = frozenset[int]


class _Part(NamedTuple):
    """One name of a pattern; `literal` is None if several names match it."""

    literal: str | None
    matches: Callable[[str], object]
    is_any_folders: bool = False


def has_magic(path: str) -> bool:
    """Whether a path is a pattern."""
    return _MAGIC.search(path) is not None


def fixed_folder(pattern: str) -> str:
    """Returns the folder before a pattern's first wildcard, with a slash at its end."""
    fixed = _MAGIC.split(pattern, maxsplit=1)[0]
    return fixed[: fixed.rfind("/") + 1]


class Glob:
    """A pattern that is compared with a path, one name after another.

    Args:
        pattern: the pattern below its `fixed_folder`.
    """

    def __init__(self, pattern: str) -> None:
        # A pattern with a slash at its end matches only folders.
        self.only_folders = pattern.endswith("/")
        self._parts = [_part(part) for part in pattern.split("/") if part]
        # Number of parts before the trailing `**` parts.
        self._last_named = len(self._parts)
        while self._last_named and self._parts[self._last_named - 1].is_any_folders:
            self._last_named -= 1

    def start(self) -> Progress:
        """Returns the progress before any name."""
        return self._past_any_folders({0})

    def step(self, progress: Progress, name: str) -> Progress:
        """Returns the progress after one more name; empty if no match is possible any more."""
        after = set()
        for used in progress:
            if used == len(self._parts):
                continue
            part = self._parts[used]
            if part.matches(name):
                after.add(used if part.is_any_folders else used + 1)
        return self._past_any_folders(after)

    def is_match(self, progress: Progress) -> bool:
        """Whether the folders so far match the whole pattern."""
        return len(self._parts) in progress

    def is_file(self, progress: Progress, name: str) -> bool:
        """Whether a file of this name matches, after the folders of `progress`.

        Unlike a folder, a file must itself match a trailing `**`.
        """
        if self.only_folders:
            return False
        for used in progress:
            if used < len(self._parts) and self._parts[used].matches(name):
                last = self._last_named if self._parts[used].is_any_folders else len(self._parts)
                if used + 1 >= last:
                    return True
        return False

    def next_names(self, progress: Progress) -> list[str] | None:
        """Returns the only possible next names, or None if the folder must be listed."""
        names = []
        for used in progress:
            if used < len(self._parts):
                literal = self._parts[used].literal
                if literal is None:
                    return None
                names.append(literal)
        return names

    def below(self, path: str) -> str | None:
        """Compares a file's path with the pattern.

        Returns:
            An empty string if the file matches. If one of its folders matches, the file's path
            below the innermost such folder. Otherwise None.
        """
        progress, found = self.start(), None
        if self.is_match(progress):
            found = path
        rest = path
        while progress:
            name, slash, rest = rest.partition("/")
            if not slash:
                return "" if self.is_file(progress, name) else found
            progress = self.step(progress, name)
            if self.is_match(progress):
                found = rest
        return found

    def _past_any_folders(self, progress: set[int]) -> Progress:
        """Adds the parts after each `**`, which may match zero folders."""
        for used in sorted(progress):
            beyond = used
            while beyond < len(self._parts) and self._parts[beyond].is_any_folders:
                beyond += 1
                progress.add(beyond)
        return frozenset(progress)


def _part(text: str) -> _Part:
    if text == "**":
        return _Part(None, lambda name: not name.startswith("."), is_any_folders=True)
    if not has_magic(text):
        return _Part(text, lambda name: name == text)
    fits = re.compile(fnmatch.translate(text)).match
    if text.startswith("."):
        return _Part(None, fits)
    return _Part(None, lambda name: not name.startswith(".") and fits(name))
