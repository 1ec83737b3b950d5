"""What a run holds back for its tables."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from cxr_embed.runs import preparing


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at open files in /proc")
def test_file_handles_are_there_for_the_tables_where_all_others_are_taken() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    with preparing.reserved_handles():
        most = 50 + max(int(file.name) for file in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, soft), hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
        except BaseException:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            raise
    try:
        taken += [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in taken:
            os.close(handle)
