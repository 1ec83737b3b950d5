"""Local files through the one surface."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_embed import storage
from cxr_embed.errors import UsageError
from cxr_embed.storage.settings import BILLING_PROJECT_VARIABLE, RETRY_SECONDS_VARIABLE, WHERE


def test_writing_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a/b/x.tfrecord"
    storage.write_whole(str(target), b"one")
    storage.write_whole(str(target), b"two")
    assert target.read_bytes() == b"two"
    assert [e.path for e in storage.list_files(str(tmp_path))] == ["a/b/x.tfrecord"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        storage.write_whole(str(tmp_path / "x"), b"data")
    with pytest.raises(OSError):
        storage.write_whole(str(tmp_path / ("n" * 300)), b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_the_longest_file_name_can_be_written(tmp_path: Path) -> None:
    storage.write_whole(str(tmp_path / ("n" * 255)), b"data")
    assert len(list(tmp_path.iterdir())) == 1


def _write_slowly(folder: str) -> None:
    class Slow(bytes):
        pass

    original = Path.replace
    Path.replace = lambda self, target: time.sleep(60) or original(self, target)  # type: ignore[method-assign, assignment]
    storage.write_whole(folder + "/x", b"data")


def test_only_a_dead_writers_file_is_removed(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("spawn").Process(
        target=_write_slowly, args=(str(tmp_path),)
    )
    writer.start()
    deadline = time.monotonic() + 300
    while not (files := list(tmp_path.iterdir())) or not files[0].stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert storage.is_temporary(files[0].name)
    assert not storage.remove_if_abandoned(str(files[0]))
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert storage.remove_if_abandoned(str(files[0]))
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_in_parallel_comes_in_order_and_not_all_at_once() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = storage.in_parallel(lambda number: number * number, numbers())
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) < 100
    assert list(results) == [number * number for number in range(3, 1000)]


def test_an_error_in_parallel_is_raised_where_it_belongs() -> None:
    results = storage.in_parallel(lambda number: 6 // number, [3, 0, 2])
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_how_buckets_are_spoken_to_is_kept_for_processes_that_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (BILLING_PROJECT_VARIABLE, RETRY_SECONDS_VARIABLE, *WHERE):
        monkeypatch.setenv(name, "")
    assert storage.settings() == storage.Settings()
    storage.configure(storage.Settings("who-pays", 5))
    assert storage.settings() == storage.Settings("who-pays", 5)
    assert os.environ["CXR_EMBED_GCS_BILLING_PROJECT"] == "who-pays"
    storage.configure(storage.Settings())
    assert storage.settings().billing_project is None


def test_no_number_of_seconds_is_a_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "soon")
    with pytest.raises(UsageError, match="CXR_EMBED_RETRY_SECONDS=soon is not a number"):
        storage.settings()


def test_a_missing_folder_lists_as_empty(tmp_path: Path) -> None:
    assert list(storage.list_files(str(tmp_path / "none"))) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_why_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "no permission" in (storage.why_not_writable(str(tmp_path / "out")) or "")


def test_an_output_below_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in (storage.why_not_writable(str(tmp_path / "file/out")) or "")
    assert storage.why_not_writable(str(tmp_path / "new/out")) is None
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_gs_paths_are_joined_with_slashes() -> None:
    assert storage.join("gs://b/p/", "x", "y") == "gs://b/p/x/y"
    assert storage.is_remote("gs://b/p")
    assert not storage.is_remote("/b/p")
