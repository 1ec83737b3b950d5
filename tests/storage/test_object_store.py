"""What holds for every service with buckets: real clients against servers on the loopback.

gs:// has suites of its own in `tests/integration/test_gcs*.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest
from buckets import FAULTS, BadLine, assert_found_as_on_disk, contents
from stores import STORES, Store

from cxr_embed import storage
from cxr_embed.errors import PlaceUnavailable
from cxr_embed.storage.files import START_BYTES


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with STORES[request.param]() as running, running.spoken_to(running.address):
        yield running


def test_files_are_listed_read_and_written_as_on_disk(store: Store) -> None:
    folder = f"{store.folder}/files"
    names = ("a/1.dcm", "a/b/2.dcm", "c.txt")
    for name in names:
        storage.write_whole(f"{folder}/{name}", name.encode())
    assert [entry.path for entry in storage.list_files(folder)] == list(names)
    assert {entry.size for entry in storage.list_files(folder)} == {7, 9, 5}
    assert storage.read_bytes(f"{folder}/c.txt") == b"c.txt"
    assert storage.read_range(f"{folder}/a/b/2.dcm", 2, 3) == b"b/2"
    assert storage.read_range(f"{folder}/a/b/2.dcm", 7, 30) == b"cm"
    assert storage.size(f"{folder}/a/b/2.dcm") == 9
    storage.remove(f"{folder}/c.txt")
    storage.remove(f"{folder}/c.txt")
    assert not storage.exists(f"{folder}/c.txt")
    assert storage.exists(f"{folder}/a/1.dcm")
    assert storage.why_not_writable(folder) is None


def test_names_that_no_disk_could_hold_are_read_as_they_are(store: Store) -> None:
    names = ("a//b.dcm", "d e#?é%2F+&.dcm", "x\ty.dcm")
    for name in names:
        storage.write_whole(f"{store.folder}/odd/{name}", name.encode())
    assert contents(f"{store.folder}/odd") == {name: name.encode() for name in names}


def test_what_is_missing_is_a_missing_file(store: Store) -> None:
    missing = f"{store.folder}/none"
    for read in (storage.read_bytes, storage.size):
        with pytest.raises(FileNotFoundError, match=f"{missing} does not exist"):
            read(missing)
    for act in (
        lambda path: list(storage.list_files(path)), lambda path: storage.write_whole(path, b"x")
    ):  # fmt: skip
        with pytest.raises(FileNotFoundError, match=f"{store.scheme}://no-bucket"):
            act(f"{store.scheme}://no-bucket/x")
    with pytest.raises(FileNotFoundError, match="names no"):
        storage.read_bytes(f"{store.scheme}://")
    with pytest.raises(IsADirectoryError):
        storage.read_bytes(f"{store.folder}/")


def test_a_search_of_a_bucket_finds_what_a_search_of_a_folder_finds(
    store: Store, tmp_path: Path
) -> None:
    assert_found_as_on_disk(f"{store.folder}/both", tmp_path)


@pytest.mark.parametrize("size", [0, 10, START_BYTES, 3_000_000])
def test_an_object_is_judged_read_and_written_in_one_request(store: Store, size: int) -> None:
    data = os.urandom(size)
    path = f"{store.folder}/judged/{size}"
    seen: list[bytes] = []

    def admit(start: bytes) -> int:
        seen.append(start)
        return size

    line = BadLine(store.address, share=0)
    with line.open() as address, store.spoken_to(address):
        storage.write_whole(path, data)
        assert line.requests == {"PUT": 1}
        assert storage.read_file(path, admit) == (data, f"{google_crc32c.value(data):08x}")
        assert line.requests == {"PUT": 1, "GET": 1}
        assert storage.read_start(path) == data[:START_BYTES]
        assert line.requests == {"PUT": 1, "GET": 2}
    assert seen == [data[:START_BYTES]]


def test_a_refusal_passes_unchanged_and_is_not_tried_again(store: Store) -> None:
    storage.write_whole(f"{store.folder}/refused", bytes(1 << 20))
    for error in (KeyError("no"), ConnectionError("like the service's own"), OSError("x")):

        def admit(start: bytes, error: Exception = error) -> int:
            raise error

        line = BadLine(store.address, share=0)
        with line.open() as address, store.spoken_to(address):
            with pytest.raises(type(error)) as raised:
                storage.read_file(f"{store.folder}/refused", admit)
            assert raised.value is error
            assert line.requests == {"GET": 1}


def test_large_files_are_written_read_and_fetched(store: Store, tmp_path: Path) -> None:
    path, data = f"{store.folder}/large", os.urandom(1 << 20) * 33
    for _ in range(2):  # the second one finds its own bytes there
        with storage.open_whole(path) as file:
            file.write(data)
    assert storage.read_bytes(path) == data
    (entry,) = [entry for entry in storage.list_files(store.folder) if entry.path == "large"]
    storage.download(path, tmp_path / "copy", entry.tag)
    assert (tmp_path / "copy").read_bytes() == data
    with pytest.raises(OSError, match=f"{path} has changed since it was listed"):
        storage.download(path, tmp_path / "copy", "other")
    with pytest.raises(storage.FileTooLarge, match=path) as raised:
        storage.read_file(path, lambda start: 1 << 20)
    assert (raised.value.size, raised.value.limit) == (33 << 20, 1 << 20)
    with pytest.raises(storage.OtherContent), storage.open_whole(path) as file:
        file.write(data[1:] + b"x")


def test_large_files_are_fetched_over_a_bad_line(store: Store, tmp_path: Path) -> None:
    path, data = f"{store.folder}/weights", os.urandom(1 << 20)
    storage.write_whole(path, data)
    line = BadLine(store.address, share=0.6, faults=("answer_cut_short", "hung_up"))
    with line.open() as address, store.spoken_to(address):
        for number in range(4):
            storage.download(path, tmp_path / "weights")
            assert (tmp_path / "weights").read_bytes() == data, number
    assert line.happened["answer_cut_short"]


def test_a_bad_line_loses_and_doubles_nothing(store: Store) -> None:
    folder = f"{store.folder}/bad-line"
    expected = {f"{number}": os.urandom(3000) for number in range(60)}
    line = BadLine(store.address, share=0.25)
    with line.open() as address, store.spoken_to(address):

        def put(name: str) -> None:
            storage.write_whole(f"{folder}/{name}", expected[name])

        list(storage.in_parallel(put, expected))
        assert contents(folder) == expected
    assert set(line.happened) == set(FAULTS)


def test_other_content_is_replaced_only_on_purpose(store: Store) -> None:
    path = f"{store.folder}/replaced"
    storage.write_whole(path, b"one")
    storage.write_whole(path, b"one")
    with pytest.raises(storage.OtherContent, match=f"{path}.*another run wrote"):
        storage.write_whole(path, b"two")
    with pytest.raises(storage.OtherContent), storage.open_whole(path) as file:
        file.write(b"two")
    assert storage.read_bytes(path) == b"one"
    storage.write_whole(path, b"two", replace=True)
    assert storage.read_bytes(path) == b"two"
    with storage.open_whole(path, replace=True) as file:
        file.write(b"four")
    assert storage.read_bytes(path) == b"four"


def test_racing_writers_leave_one_whole_object(store: Store) -> None:
    path = f"{store.folder}/race"
    contents_ = [bytes([number]) * 20_000 for number in range(4)]
    refused: list[OSError] = []

    def write(data: bytes) -> None:
        try:
            storage.write_whole(path, data)
        except storage.OtherContent as error:
            refused.append(error)

    writers = [threading.Thread(target=write, args=(data,)) for data in contents_ * 2]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert storage.read_bytes(path) in contents_
    assert len(refused) == 6  # two of the eight had the bytes that came first


def test_a_service_that_stays_away_is_given_up_with_the_path_named(store: Store) -> None:
    path = f"{store.folder}/x"
    line = BadLine(store.address, share=1.0, faults=("unavailable", "too_many", "hung_up"))
    with line.open() as address, store.spoken_to(address, retry_seconds=0.3):
        for act in (
            storage.read_bytes, storage.exists, storage.size, lambda p: list(storage.list_files(p)),
            lambda p: storage.write_whole(p, b"x"), storage.remove,
        ):  # fmt: skip
            with pytest.raises(PlaceUnavailable, match=f"{path}: gave up after 0.3 s"):
                act(path)
    assert 9 <= sum(line.requests.values()) < 60
    with (
        store.spoken_to("http://127.0.0.1:9", retry_seconds=0.3),
        pytest.raises(PlaceUnavailable, match=f"{path}: gave up"),
    ):
        storage.read_bytes(path)


def test_a_child_process_gets_a_client_of_its_own(store: Store) -> None:
    path = f"{store.folder}/forked"
    storage.write_whole(path, b"data")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if storage.read_bytes(path) == b"data" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert storage.read_bytes(path) == b"data"
