"""Objects of any size, lists that break off, services that are away: with the real client."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import google_crc32c
import pytest
from buckets import BadLine, assert_found_as_on_disk, emulator, serving, spoken_to

from cxr_embed import storage
from cxr_embed.errors import PlaceUnavailable, UsageError
from cxr_embed.storage import find_images as sources
from cxr_embed.storage.files import START_BYTES


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with emulator() as address, spoken_to(address):
        yield address


def crc(data: bytes) -> str:
    return f"{google_crc32c.value(data):08x}"


@pytest.mark.parametrize("size", [0, 10, START_BYTES, 3_000_000])
def test_an_object_is_judged_and_read_in_one_request(service: str, size: int) -> None:
    data = os.urandom(size)
    storage.write_whole(f"gs://bucket/judged/{size}", data)
    seen: list[bytes] = []

    def admit(start: bytes) -> int:
        seen.append(start)
        return size

    line = BadLine(service, share=0)
    with line.open() as address, spoken_to(address):
        assert storage.read_file(f"gs://bucket/judged/{size}", admit) == (data, crc(data))
        assert line.requests == {"GET": 1}
        assert storage.read_start(f"gs://bucket/judged/{size}") == data[:START_BYTES]
        assert line.requests == {"GET": 2}
    assert seen == [data[:START_BYTES]]


def test_a_refusal_passes_unchanged_and_is_not_tried_again(service: str) -> None:
    storage.write_whole("gs://bucket/refused", bytes(1 << 20))
    for error in (KeyError("no"), ConnectionError("like the service's own"), OSError("x")):

        def admit(start: bytes, error: Exception = error) -> int:
            raise error

        line = BadLine(service, share=0)
        with line.open() as address, spoken_to(address):
            with pytest.raises(type(error)) as raised:
                storage.read_file("gs://bucket/refused", admit)
            assert raised.value is error
            assert line.requests == {"GET": 1}


def test_what_is_too_large_is_not_read_whole(service: str) -> None:
    storage.write_whole("gs://bucket/large", bytes(64 << 20))
    with pytest.raises(storage.FileTooLarge, match="gs://bucket/large") as raised:
        storage.read_file("gs://bucket/large", lambda start: 1 << 20)
    assert (raised.value.size, raised.value.limit) == (64 << 20, 1 << 20)


def test_an_object_whose_size_is_not_told_is_bounded_too() -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    with serving(Endless) as address, spoken_to(address):
        tracemalloc.start()
        try:
            with pytest.raises(storage.FileTooLarge) as raised:
                storage.read_file("gs://bucket/endless", lambda start: 4 << 20)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
    assert (raised.value.size, raised.value.limit) == (None, 4 << 20)


def test_an_answer_cut_short_is_judged_and_read_again(service: str) -> None:
    data = os.urandom(1 << 20)
    storage.write_whole("gs://bucket/cut", data)
    line = BadLine(service, share=0.7, faults=("answer_cut_short",))
    with line.open() as address, spoken_to(address):
        for _ in range(5):
            assert storage.read_file("gs://bucket/cut", lambda start: 1 << 20).data == data
    assert line.happened["answer_cut_short"] >= 2


def test_a_wrong_checksum_is_an_error_of_this_object() -> None:
    class Wrong(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.send_header("X-Goog-Hash", "crc32c=AAAAAA==")
            self.end_headers()
            self.wfile.write(b"data")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Wrong) as address, spoken_to(address, retry_seconds=1):
        with pytest.raises(
            OSError, match=r"gs://bucket/x: gave up .*not match its checksum"
        ) as raised:
            storage.read_file("gs://bucket/x")
        assert not isinstance(raised.value, PlaceUnavailable)


def answering(status: int, after_pages: int = 0) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        pages = 0

        def do_GET(self) -> None:
            error = {"error": {"code": status, "message": "no", "errors": [{"message": "no"}]}}
            page = {"items": [{"name": "in/a.dcm", "size": "1"}], "nextPageToken": "next"}
            is_page = Answering.pages < after_pages
            Answering.pages += 1
            content = json.dumps(page if is_page else error).encode()
            self.send_response(200 if is_page else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Answering


@pytest.mark.parametrize("status", [403, 503, 400])
def test_a_listing_that_breaks_off_half_way_is_no_smaller_one(status: int) -> None:
    with (
        serving(answering(status, after_pages=2)) as address,
        spoken_to(address, retry_seconds=1),
        pytest.raises(OSError, match="gs://bucket/in"),
    ):
        list(storage.list_paths("gs://bucket/in"))
    for path in ("gs://bucket/in", "gs://bucket/in/*.dcm"):
        with (
            serving(answering(status, after_pages=2)) as address,
            spoken_to(address, retry_seconds=1),
            pytest.raises(UsageError, match="--input_path cannot be listed: gs://bucket/in"),
        ):
            sources.find_images(path)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (503, PlaceUnavailable), (429, PlaceUnavailable), (401, PlaceUnavailable),
        (403, PermissionError), (404, FileNotFoundError), (400, OSError),
    ],
)  # fmt: skip
def test_what_each_refusal_is(status: int, kind: type[OSError]) -> None:
    with serving(answering(status)) as address, spoken_to(address, retry_seconds=1):
        with pytest.raises(OSError, match="gs://bucket/x") as raised:
            storage.read_file("gs://bucket/x")
        assert type(raised.value) is kind


def test_a_service_that_cannot_be_reached_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        spoken_to("http://127.0.0.1:9", retry_seconds=1),
        pytest.raises(PlaceUnavailable, match="gs://bucket/x: gave up"),
    ):
        storage.write_whole("gs://bucket/x", b"x")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(PlaceUnavailable, match="gs://bucket/x: no Google Cloud credentials here"):
        storage.read_file("gs://bucket/x")


def test_a_search_of_a_bucket_finds_what_a_search_of_a_folder_finds(
    service: str, tmp_path: Path
) -> None:
    assert_found_as_on_disk("gs://bucket/both", tmp_path)
