"""What a run leaves behind besides records."""

from __future__ import annotations

import re
import time

from cxr_embed.runs import new_run_id


def test_names_of_runs_sort_by_time() -> None:
    names = []
    for _ in range(20):
        names.append(new_run_id())
        time.sleep(0.002)
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{6}", name) for name in names)
