"""Calls a function on many arguments in parallel, for reads; counts the usable cores."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_READS_AT_A_TIME = 16

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def in_parallel(
    function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]
) -> Iterator[_Result]:
    """Yields `function` of each argument in order, with several calls in parallel threads.

    It is meant for reads, which mostly wait. The number of results held in memory is bounded.
    """
    remaining = iter(arguments)
    with ThreadPoolExecutor(_READS_AT_A_TIME) as pool:
        waiting = deque(
            pool.submit(function, each)
            for each in itertools.islice(remaining, 2 * _READS_AT_A_TIME)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(
                    pool.submit(function, each) for each in itertools.islice(remaining, 1)
                )
                yield result
        finally:
            for each in waiting:
                each.cancel()


def usable_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
