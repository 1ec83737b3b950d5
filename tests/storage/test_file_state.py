"""What shows that a file has changed, and what shows that it has not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cxr_embed.storage import file_state as module
from cxr_embed.storage.file_state import file_state


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_that_has_not_changed_keeps_its_state(record: Path) -> None:
    before = file_state(str(record))
    record.read_bytes()
    assert file_state(str(record)) == before != ""


def test_it_does_not_depend_on_how_the_path_is_written(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(record.parent)
    assert file_state("./a.tfrecord") == file_state(str(record))


def test_a_byte_changed_in_place_shows_though_the_times_are_set_back(record: Path) -> None:
    before, status = file_state(str(record)), record.stat()
    with record.open("r+b") as file:
        file.write(b"X")
    os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert record.stat().st_size == status.st_size
    assert record.stat().st_mtime_ns == status.st_mtime_ns
    assert file_state(str(record)) != before


def test_a_copy_that_keeps_its_times_shows(record: Path) -> None:
    before = file_state(str(record))
    copy = record.with_name("copy")
    shutil.copy2(record, copy)
    copy.replace(record)
    assert file_state(str(record)) != before


def test_another_boot_of_the_machine_shows(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_state(str(record))
    monkeypatch.setattr(module, "_boot", lambda: "another")  # a test cannot boot the machine
    assert file_state(str(record)) not in (before, "")


def test_where_nothing_identifies_the_boot_there_is_no_state(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_boot", lambda: "")
    assert file_state(str(record)) == ""


@pytest.mark.parametrize("path", ["none", "none/a.tfrecord", "gs://bucket/a.tfrecord"])
def test_what_is_no_local_file_has_no_state(tmp_path: Path, path: str) -> None:
    assert file_state(path if "://" in path else str(tmp_path / path)) == ""
