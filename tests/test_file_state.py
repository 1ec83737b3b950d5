"""Which records need not be read again, and everything that makes one be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cxr_embed import ledger


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_that_nobody_touched_keeps_its_stamp(record: Path) -> None:
    assert ledger.stamp_of(str(record)) == ledger.stamp_of(str(record)) is not None


def test_a_byte_changed_in_place_shows_though_the_times_are_set_back(record: Path) -> None:
    before, status = ledger.stamp_of(str(record)), record.stat()
    with record.open("r+b") as file:
        file.write(b"X")
    os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert record.stat().st_size == status.st_size
    assert record.stat().st_mtime_ns == status.st_mtime_ns
    assert ledger.stamp_of(str(record)) != before


def test_a_copy_that_keeps_its_times_shows(record: Path) -> None:
    before = ledger.stamp_of(str(record))
    copy = record.with_name("copy")
    shutil.copy2(record, copy)
    copy.replace(record)
    assert ledger.stamp_of(str(record)) != before


def test_another_boot_of_the_machine_shows(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ledger.stamp_of(str(record))
    monkeypatch.setattr(ledger, "_boot", lambda: "another")
    assert ledger.stamp_of(str(record)) != before


def test_where_nothing_tells_boots_apart_nothing_is_noted(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_boot", lambda: "")
    assert ledger.line_of(str(record), "a.tfrecord", "a.dcm", 4) is None


def test_a_missing_file_has_no_stamp(tmp_path: Path) -> None:
    assert ledger.stamp_of(str(tmp_path / "none")) is None


def test_lines_come_back_whatever_is_in_a_name(tmp_path: Path) -> None:
    odd = b'a,"b"\n\xff.dcm'.decode("utf-8", "surrogateescape")
    lines = [ledger.Line("x.tfrecord", odd, "4", "s1"), ledger.Line("y.tfrecord", "y", "4", "s2")]
    (tmp_path / "old").write_bytes(ledger.encode([ledger.Line("y.tfrecord", "y", "4", "s0")]))
    (tmp_path / "new").write_bytes(ledger.encode(lines))
    found = ledger.read([str(tmp_path / "old"), str(tmp_path / "new"), str(tmp_path / "gone")])
    assert found == {line.record: line for line in lines}


def test_a_damaged_ledger_says_nothing_and_harms_nobody(tmp_path: Path) -> None:
    whole = ledger.encode([ledger.Line(f"{n}", "id", "4", "stamp") for n in range(9000)])
    (tmp_path / "torn").write_bytes(whole[:-9])
    (tmp_path / "zeros").write_bytes(b"\0" * 200_000)
    (tmp_path / "quote").write_bytes(b'"' + whole)
    found = ledger.read(str(tmp_path / name) for name in ("quote", "zeros", "torn"))
    assert len(found) == 8999 or found["8999"].stamp != "stamp"
    assert found["17"] == ledger.Line("17", "id", "4", "stamp")
