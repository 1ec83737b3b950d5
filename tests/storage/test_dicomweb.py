from __future__ import annotations

import base64
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from buckets import QuietHandler
from dicomweb_server import (
    Store,
    capped,
    everything,
    exact,
    no_offset,
    overlapping,
    send,
)  # fmt: skip

from cxr_embed import storage
from cxr_embed.errors import PlaceUnavailable, UsageError
from cxr_embed.storage.dicomweb_address import check_query, shown_query, with_query

SECRET = "s3cret-t0ken"
ONE = "studies/1.2.0/series/1.3.0/instances/1.4.0"

# Prints how many paths are listed, and how many KiB more are needed than for a single study.
PEAK = """
import resource, sys
from cxr_embed import storage

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

list(storage.list_paths(sys.argv[1]))
before = peak()
print(sum(1 for _ in storage.list_paths(sys.argv[2])), peak() - before)
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXR_EMBED_RETRY_SECONDS", "1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"CXR_EMBED_DICOMWEB_{name}", raising=False)


def listed(address: str, query: str = "") -> list[str]:
    return list(storage.list_paths(with_query(address, query)))


class TestListing:
    @pytest.mark.parametrize("paging", [exact, everything, capped, no_offset, overlapping])
    @pytest.mark.parametrize("count", [0, 7, 1000, 2345])
    def test_every_instance_once_and_sorted_whatever_the_store_does_with_pages(
        self, paging: object, count: int
    ) -> None:
        store = Store(count, paging)  # type: ignore[arg-type]
        with store.open() as address:
            assert listed(address) == store.paths()

    def test_a_study_and_a_series_are_listed_below_their_address(self) -> None:
        with Store(20).open() as address:
            assert listed(f"{address}/studies/1.2.3") == [
                f"series/1.3.{n // 2}/instances/1.4.{n}" for n in range(12, 16)
            ]
            assert listed(f"{address}/studies/1.2.3/series/1.3.7/") == [
                "instances/1.4.14", "instances/1.4.15",
            ]  # fmt: skip

    @pytest.mark.parametrize("status", [400, 404, 405, 501])
    def test_a_store_without_a_search_for_instances_is_searched_level_by_level(
        self, status: int
    ) -> None:
        store = Store(30, searches=("/instances", "/studies/1.2.3/instances"))
        store.refusal = status
        with store.open() as address:
            assert listed(address) == store.paths()
            asked = listed(address, "Modality=DX&StudyDate=20200101-&00200013=1")
            assert asked == store.paths()
        paths = [path for path, _ in store.asked if "StudyDate" in path or "Modality" in path]
        assert any(path.startswith("/dw/studies?StudyDate=20200101-&limit") for path in paths)
        assert any(path.startswith("/dw/studies/1.2.3/series?Modality=DX&limit") for path in paths)
        assert any("/studies/1.2.4/instances?Modality=DX&00200013=1" in path for path in paths)

    def test_an_error_on_any_page_ends_the_listing_and_names_the_page(self) -> None:
        store = Store(2345)

        def fail(handler: QuietHandler, path: str) -> bool:
            if "offset=2000" in path:
                send(handler, 500)
            return "offset=2000" in path

        store.answers = fail
        with (
            store.open() as address,
            pytest.raises(
                PlaceUnavailable, match=r"page 3 of /instances \(offset 2000\): gave up .* HTTP 500"
            ),
        ):
            listed(address)

    def test_a_store_that_says_it_left_out_matches_is_not_believed(self) -> None:
        store = Store(30, lambda found, limit, offset: found[:10])
        store.warning = '299 store: "The number of results exceeded the maximum"'
        with store.open() as address, pytest.raises(OSError, match="more matches than the 10"):
            listed(address)

    def test_a_list_of_matches_that_is_cut_short_is_asked_for_again(self) -> None:
        store = Store(50)
        cuts = iter([40, 700])

        def cut(handler: QuietHandler, path: str) -> bool:
            at = next(cuts, None)
            if at is None:
                return False
            handler.send_response(200)
            handler.send_header("Content-Type", "application/dicom+json")
            handler.send_header("Transfer-Encoding", "identity")
            handler.end_headers()
            handler.wfile.write(b'[{"00080018": {"vr": "UI", "Value": ["1.4.0"]}},'[:at])
            handler.close_connection = True
            return True

        store.answers = cut
        with store.open() as address:
            assert listed(f"{address}/studies/1.2.0/series/1.3.0") == [
                "instances/1.4.0", "instances/1.4.1",
            ]  # fmt: skip

    def test_the_servers_words_are_shown_without_the_values_asked_for(self) -> None:
        store = Store(3)

        def refuse(handler: QuietHandler, path: str) -> bool:
            if "PatientName" in path:
                send(handler, 400, b'[{"error": {"message": "no PatientName DOE^JANE, use DOE"}}]')
            return "PatientName" in path

        store.answers = refuse
        with store.open() as address, pytest.raises(OSError, match="HTTP 400: no PatientName") as e:
            listed(address, "PatientName=DOE^JANE")
        assert "DOE" not in str(e.value)
        assert "JANE" not in str(e.value)

    def test_a_page_for_people_is_not_a_list(self) -> None:
        store = Store(3)
        store.answers = lambda handler, path: (
            not send(handler, 200, b"<html>", **{"Content-Type": "text/html"})
        )
        with store.open() as address:
            with pytest.raises(OSError, match="answers with text/html, not with DICOM JSON"):
                listed(address)
            with pytest.raises(OSError, match="answers with text/html, not with DICOM"):
                storage.read_file(f"{address}/{ONE}")

    @pytest.mark.parametrize("uid", ["../../x", "a/b", "", "1" * 65, None])
    def test_a_uid_that_cannot_name_a_file_is_refused(self, uid: object) -> None:
        store = Store(1)
        store.names = [("1.2.0", "1.3.0", uid)]  # type: ignore[list-item]
        with store.open() as address, pytest.raises(OSError, match="no valid UID"):
            listed(address)

    @pytest.mark.slow
    def test_memory_stays_small_with_a_hundred_thousand_instances_in_one_page(self) -> None:
        store = Store(100_000, everything)
        with store.open() as address:
            # The memory of this server is not to be counted.
            asked = subprocess.run(
                [sys.executable, "-c", PEAK, f"{address}/studies/1.2.0", address],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        count, more = map(int, asked.stdout.split())
        assert count == 100_000
        assert more < 120 << 10


class TestReading:
    def test_it_asks_for_the_instance_as_it_is_stored(self) -> None:
        store = Store(1)
        with store.open() as address:
            assert storage.read_file(f"{address}/{ONE}").data == b"image"
            assert storage.exists(f"{address}/{ONE}")
            assert storage.size(f"{address}/{ONE}") == 5
            assert storage.read_range(f"{address}/{ONE}", 1, 2) == b"ma"
        path, headers = store.asked[0]
        assert path == f"/dw/{ONE}"
        assert headers["Accept"] == (
            'multipart/related; type="application/dicom"; transfer-syntax=*'
        )

    def test_an_instance_outside_multipart_is_taken_too(self) -> None:
        store = Store(1)
        store.content_type, store.content = "application/dicom", b"bare"
        with store.open() as address:
            assert storage.read_file(f"{address}/{ONE}").data == b"bare"

    def test_a_connection_is_used_again(self) -> None:
        store = Store(1)
        ports = set()
        store.answers = lambda handler, path: bool(ports.add(handler.client_address))
        with store.open() as address:
            for _ in range(5):
                storage.read_file(f"{address}/{ONE}")
        assert len(ports) == 1

    @pytest.mark.parametrize(
        ("status", "kind", "words"),
        [
            (404, FileNotFoundError, "does not exist"),
            (410, FileNotFoundError, "does not exist"),
            (403, PermissionError, "HTTP 403"),
            (401, PlaceUnavailable, "credentials are missing or not valid"),
            (406, OSError, "does not send what it has untranscoded"),
            (400, OSError, "does not send what it has untranscoded"),
            (500, PlaceUnavailable, "gave up after 1 s: HTTP 500"),
            (429, PlaceUnavailable, "gave up after 1 s: HTTP 429"),
        ],
    )
    def test_a_status_is_the_images_fault_or_the_places(
        self, status: int, kind: type[OSError], words: str
    ) -> None:
        store = Store(1)
        store.answers = lambda handler, path: not send(handler, status, b"SECRET^NAME")
        with store.open() as address, pytest.raises(kind, match=words) as error:
            storage.read_file(f"{address}/{ONE}")
        assert str(error.value).startswith(f"{address}/{ONE}: ")
        assert "SECRET" not in str(error.value)
        assert isinstance(error.value, PlaceUnavailable) == (kind is PlaceUnavailable)

    def test_an_instance_that_is_always_cut_short_is_that_images_failure(self) -> None:
        store = Store(1)
        store.content = store.content[:-6]
        with store.open() as address, pytest.raises(OSError, match="closing boundary") as error:
            storage.read_file(f"{address}/{ONE}")
        assert not isinstance(error.value, PlaceUnavailable)
        assert len(store.asked) > 1

    def test_a_server_that_is_not_there_is_an_outage(self) -> None:
        with pytest.raises(PlaceUnavailable, match=r"instances/1\.4\.0: gave up .* refused"):
            storage.read_file(f"dicomweb+http://127.0.0.1:9/{ONE}")

    def test_it_waits_as_long_as_the_server_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXR_EMBED_RETRY_SECONDS", "30")
        store = Store(1)
        times: list[float] = []

        def busy(handler: QuietHandler, path: str) -> bool:
            times.append(time.monotonic())
            if len(times) == 1:
                send(handler, 429, b"", **{"Retry-After": "1"})
            return len(times) == 1

        store.answers = busy
        with store.open() as address:
            assert storage.read_file(f"{address}/{ONE}").data == b"image"
        assert times[1] - times[0] >= 1

    def test_a_connection_that_drips_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cxr_embed.storage.dicomweb_client._PATIENCE_SECONDS", 0.2)
        store = Store(1)
        has_ended = threading.Event()

        def drip(handler: QuietHandler, path: str) -> bool:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/dicom")
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(1000):
                if has_ended.wait(0.05):
                    break
                handler.wfile.write(b"x")
                handler.wfile.flush()
            return True

        store.answers = drip
        with store.open() as address:
            with pytest.raises(PlaceUnavailable, match=r"only \d+ bytes arrived"):
                storage.read_file(f"{address}/{ONE}")
            has_ended.set()


class TestCredentials:
    def test_the_token_is_sent(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_TOKEN", SECRET)
        store = Store(1)
        with store.open() as address:
            listed(address)
        assert store.asked[0][1]["Authorization"] == f"Bearer {SECRET}"

    def test_a_user_and_a_password_are_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_USER", "jürgen")
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_PASSWORD", "pä:ss")
        store = Store(1)
        with store.open() as address:
            listed(address)
        encoded = store.asked[0][1]["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(encoded).decode() == "jürgen:pä:ss"

    def test_netrc_is_used_for_its_host(self, tmp_path: Path) -> None:
        store = Store(1)
        (tmp_path / "netrc").write_text("machine other.example login a password b\n")
        with store.open() as address:
            listed(address)
            (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
            storage.read_file(f"{address}/{ONE}")
        assert "Authorization" not in store.asked[0][1]
        assert store.asked[-1][1]["Authorization"].startswith("Basic ")

    def test_a_redirect_to_another_host_loses_the_credentials(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_TOKEN", SECRET)
        (tmp_path / "netrc").write_text("default login a password b\n")
        here, there = Store(1), Store(1)
        with here.open() as address, there.open() as other:
            target = other.removeprefix("dicomweb+").replace("127.0.0.1", "localhost")
            here.answers = lambda handler, path: (
                not send(handler, 302, Location=f"{target}{path.removeprefix('/dw')}")
            )
            assert storage.read_file(f"{address}/{ONE}").data == b"image"
        assert "Authorization" in here.asked[0][1]
        assert "Authorization" not in there.asked[0][1]

    def test_a_token_is_not_sent_in_plain_text_to_other_machines(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_TOKEN", SECRET)
        address = "dicomweb+http://pacs.example/dw"
        with pytest.raises(UsageError, match="not sent without encryption"):
            storage.check_place(address, "--input_path")
        with pytest.raises(PlaceUnavailable, match="not sent without encryption"):
            storage.read_file(f"{address}/{ONE}")
        storage.check_place("dicomweb+https://pacs.example/dw", "--input_path")

    def test_a_server_that_repeats_the_token_is_not_repeated(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_TOKEN", SECRET)
        store = Store(1)
        store.answers = lambda handler, path: not send(handler, 401, f"bad {SECRET}".encode())
        with store.open() as address, pytest.raises(PlaceUnavailable, match="401: bad …") as error:
            listed(address)
        assert SECRET not in str(error.value)

    def test_no_google_credentials_is_an_outage_that_says_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
        with pytest.raises(PlaceUnavailable, match="gcloud auth application-default login"):
            storage.read_file(f"dicomweb+https://healthcare.googleapis.com/v1/dicomWeb/{ONE}")


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "dicomweb+https://pacs.example",
            "dicomweb+https://pacs.example:8443/dw/",
            "dicomweb+http://localhost:8042/dicom-web/studies/1.2.3/series/4.5",
            "dicomweb+https://healthcare.googleapis.com/v1/projects/p/locations/l/datasets/d/"
            "dicomStores/s/dicomWeb",
        ],
    )
    def test_these_are_valid(self, address: str) -> None:
        storage.check_place(address, "--input_path")

    @pytest.mark.parametrize(
        "address",
        [
            f"dicomweb+https://me:{SECRET}@pacs.example/dw",
            f"dicomweb+https://me:{SECRET}/x@pacs.example/dw",
            f"dicomweb+https://me:1234/{SECRET}@pacs.example/dw",
            f"dicomweb+https://pacs.example/dw?token={SECRET}",
            f"dicomweb+https://pacs.example/dw#{SECRET}",
        ],
    )
    def test_a_secret_in_an_address_is_refused_without_being_repeated(self, address: str) -> None:
        with pytest.raises(UsageError) as error:
            storage.check_place(address, "--input_path")
        assert SECRET not in str(error.value)
        assert "credentials" in str(error.value) or "query" in str(error.value)

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("dicomweb+https:///dw", "names no host"),
            ("dicomweb+https://h/dw/studies/1/series/*", "wildcards"),
            ("dicomweb+https://h/dw/studies/1/2", "not of the form"),
            ("dicomweb+https://h/dw/studies/1/instances/2", "not of the form"),
            ("dicomweb+https://h_/d w", "not valid|no spaces"),
        ],
    )
    def test_these_are_not(self, address: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            storage.check_place(address, "--input_path")

    def test_nothing_is_written_there(self) -> None:
        address = "dicomweb+https://pacs.example/dw"
        assert storage.why_not_writable(address) == f"{address} can be read only"
        with pytest.raises(OSError, match="read only"):
            storage.write_whole(f"{address}/x", b"")

    def test_a_study_is_not_an_image(self) -> None:
        with pytest.raises(OSError, match="not the address of one instance"):
            storage.read_file("dicomweb+https://pacs.example/dw/studies/1.2")


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("Modalty=DX", "did you mean Modality"),
            ("DX", "not of the form"),
            ("limit=5", "pass --limit"),
            ("Modality=DX&", "not of the form"),
        ],
    )
    def test_a_mistake_is_found_before_the_store_is_asked(self, query: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            check_query(query, "dicomweb+https://pacs.example/dw")

    def test_it_needs_a_store(self) -> None:
        for other in (None, "folder", "gs://bucket/x", f"dicomweb+https://h/dw/{ONE}"):
            with pytest.raises(UsageError):
                check_query("Modality=DX", other)

    def test_a_manifest_does_not_say_whose_images_were_asked_for(self) -> None:
        shown = shown_query("Modality=DX&PatientID=123&PatientName=DOE&StudyDate=2020-")
        assert shown == "Modality=DX&PatientID=…&PatientName=…&StudyDate=2020-"
