"""How many threads a run takes where nobody says."""

from __future__ import annotations

import pytest

from cxr_embed.threads import Threads, choose


@pytest.mark.parametrize(
    ("device", "batch_size", "is_remote", "expected"),
    [
        ("cpu", 1, False, Threads(decode=5, walks=5)),
        ("cpu", 1, True, Threads(decode=13, walks=13)),
        ("cpu", 8, False, Threads(decode=5, walks=3)),
        ("gpu", 16, False, Threads(decode=8, walks=3)),
        ("gpu", 16, True, Threads(decode=16, walks=3)),
        ("a hosted endpoint", 8, False, Threads(decode=8, walks=3)),
    ],
)
def test_they_follow_from_cores_device_batch_and_place(
    device: str, batch_size: int, is_remote: bool, expected: Threads
) -> None:
    chosen = choose(0, batch_size=batch_size, device=device, is_remote=is_remote, cores=4)
    assert chosen == expected


@pytest.mark.parametrize(("batch_size", "walks"), [(1, 2), (16, 3)])
def test_what_the_user_says_holds(batch_size: int, walks: int) -> None:
    chosen = choose(2, batch_size=batch_size, device="gpu", is_remote=True, cores=4)
    assert chosen == Threads(decode=2, walks=walks)
