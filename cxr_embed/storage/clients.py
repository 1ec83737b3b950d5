"""Clients of storage services: one per process, shared by its threads, never by forked children."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

# Connect timeout, read timeout.
TIMEOUT_SECONDS = (10.0, 60.0)

# More than a worker's threads, so that no thread waits for a connection or opens a new one.
CONNECTIONS = 64

_caches: weakref.WeakSet[ClientCache] = weakref.WeakSet()


class ClientCache:
    """Keeps a service's client, which keeps its connections.

    Args:
        make: makes a client.
        variables: the environment variables that `make` reads; a change of one makes a new client.
    """

    def __init__(self, make: Callable[[], Any], variables: tuple[str, ...]) -> None:
        self._make, self._variables = make, variables
        self.forget()
        _caches.add(self)

    def forget(self) -> None:
        """Forgets the client, and a lock that another thread of the parent process may hold."""
        self._lock = threading.Lock()
        self._made: dict[tuple[str | None, ...], Any] = {}

    def get(self) -> Any:
        """Returns this process's client."""
        key = tuple(os.environ.get(name) for name in self._variables)
        with self._lock:
            if key not in self._made:
                self._made.clear()
                self._made[key] = self._make()
            return self._made[key]


def _forget_all() -> None:
    for cache in _caches:
        cache.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
