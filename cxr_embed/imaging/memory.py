"""How much memory this machine, or the container that the process runs in, still has.

The standard library does not report it, and psutil does not know of a container's limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    """Names of a memory controller's files: the limit, what is used, and the statistics."""

    limit: str
    usage: str
    reclaimable: str


_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes() -> int | None:
    """Returns how many bytes can be had before memory runs out; None where it is not known.

    That is the least of MemAvailable in /proc/meminfo and what the limit of each control group
    (version 1 or 2) that this process belongs to leaves. Files cached in memory count as free.
    """
    known = list(_left_in_control_groups())
    machine = _statistic(PROC / "meminfo", "MemAvailable:")
    if machine is not None:
        known.append(1024 * machine)
    return min(known, default=None)


def _left_in_control_groups() -> Iterator[int]:
    roots: tuple[Path, ...]
    for line in _read(PROC / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0":
            roots, files = (CONTROL_GROUPS, CONTROL_GROUPS / "unified"), _VERSION_2
        elif "memory" in controllers.split(","):
            roots, files = (CONTROL_GROUPS / "memory",), _VERSION_1
        else:
            continue
        folder = Path(group.lstrip("/"))
        # The limit of any group above counts too. A container may see its own group as the root,
        # whatever path it is given here.
        for path in (folder, *folder.parents):
            for root in roots:
                left = _left(root / path, files)
                if left is not None:
                    yield left


def _left(folder: Path, files: _Files) -> int | None:
    limit, usage = _read(folder / files.limit).strip(), _read(folder / files.usage).strip()
    if not limit.isdigit() or not usage.isdigit():  # "max" is no limit
        return None
    reclaimable = _statistic(folder / "memory.stat", files.reclaimable) or 0
    return max(0, int(limit) - int(usage) + reclaimable)


def _statistic(path: Path, name: str) -> int | None:
    for line in _read(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name:
            return int(words[1])
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
