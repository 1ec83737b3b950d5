"""How many threads read images where the user leaves it open."""

from __future__ import annotations

import os

import pytest

from cxr_embed.pipeline.threads import reading_threads
from cxr_embed.storage.parallel import usable_cores


@pytest.mark.parametrize(
    ("device", "is_remote", "expected"),
    [
        ("cpu", False, 4),
        ("cpu", True, 12),
        ("gpu", False, 8),
        ("gpu", True, 16),
        ("3 x tpu", False, 8),
        ("a hosted endpoint", False, 8),
    ],
)
def test_they_follow_from_cores_device_and_place(
    device: str, is_remote: bool, expected: int
) -> None:
    assert reading_threads(0, device=device, is_remote=is_remote, cores=4) == expected


@pytest.mark.parametrize("is_remote", [False, True])
def test_the_users_number_is_taken_as_it_is(is_remote: bool) -> None:
    assert reading_threads(2, device="gpu", is_remote=is_remote, cores=4) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such limits here")
def test_only_cores_that_this_process_may_use_count() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
        assert reading_threads(0, device="cpu", is_remote=False) == 1
    finally:
        os.sched_setaffinity(0, before)
