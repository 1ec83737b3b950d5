"""How much memory the machine or its container has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_embed.imaging import memory


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder that serves as the root of a file system, with 8,000 kB available."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path / "groups")
    write(tmp_path / "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine_has_some() -> None:
    available = memory.available_bytes()
    assert available is not None
    assert 1 << 20 < available < 1 << 50


def test_without_a_container_it_is_the_machines(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/user\n")
    write(system / "groups/user/memory.max", "max\n")
    write(system / "groups/user/memory.current", "5000000\n")
    assert memory.available_bytes() == 8000 * 1024


def test_a_limit_of_version_2_counts_in_any_group_above(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/pod/container\n")
    write(system / "groups/pod/memory.max", "6000000\n")
    write(system / "groups/pod/memory.current", "5000000\n")
    write(system / "groups/pod/memory.stat", "anon 4\ninactive_file 300000\n")
    write(system / "groups/pod/container/memory.max", "max\n")
    write(system / "groups/pod/container/memory.current", "5000000\n")
    assert memory.available_bytes() == 1_300_000


def test_a_limit_of_version_1_counts(system: Path) -> None:
    write(system / "proc/self/cgroup", "5:cpu:/x\n4:memory:/host/path/of/it\n0::/\n")
    # A container sees its own group as the root.
    write(system / "groups/memory/memory.limit_in_bytes", "6000000\n")
    write(system / "groups/memory/memory.usage_in_bytes", "5000000\n")
    write(system / "groups/memory/memory.stat", "total_inactive_file 200000\n")
    assert memory.available_bytes() == 1_200_000


def test_a_system_without_these_files_does_not_know(system: Path) -> None:
    (system / "proc/meminfo").unlink()
    assert memory.available_bytes() is None
