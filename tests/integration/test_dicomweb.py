"""Radiographs in Orthanc, a real DICOMweb store: the same records as those of the files."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from buckets import FAULTS, BadLine, QuietHandler
from orthanc import Orthanc, fill, needs_orthanc, orthanc
from running import Ran, arguments_of, command, records, run_here, table

from cxr_embed import read_radiograph, storage
from cxr_embed.cli import inspect, main, run, verify
from cxr_embed.errors import PlaceUnavailable
from cxr_embed.records import decode_record, encode_record

pytestmark = needs_orthanc


COUNT = 60


class Filled(NamedTuple):
    """A server and files with the same images, and the records of the files."""

    server: Orthanc
    files: Path
    expected: dict[str, bytes]


def without_ids(output: Path) -> dict[str, bytes]:
    """Returns the bytes of each record, had its image no id."""
    return {
        name: encode_record(replace(decode_record(data), image_id=""))
        for name, data in records(output).items()
    }


def image_ids(output: Path) -> set[str]:
    return {decode_record(data).image_id for data in records(output).values()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Filled]:
    with filled_store(tmp_path_factory.mktemp("orthanc"), tiny_model, COUNT) as store:
        yield store


@contextmanager
def filled_store(folder: Path, model: Path, count: int) -> Iterator[Filled]:
    files, output = folder / "files", folder / "of-files"
    files.mkdir()
    with orthanc(folder) as server:
        fill(server, files, count)
        flags = {"input_path": files, "output_path": output, "model_path": model}
        assert main.guarded(run.main, arguments_of(**flags)) == 0
        yield Filled(server, files, without_ids(output))


@pytest.fixture(autouse=True)
def retry_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_EMBED_RETRY_SECONDS", "20")


@pytest.fixture
def embed(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    def run_on(*extra: str, **flags: object) -> Ran:
        return run_here(
            capsys, *extra, output_path=tmp_path / "out", model_path=tiny_model, **flags
        )

    return run_on


def test_the_records_are_those_of_the_files(
    filled: Filled, tmp_path: Path, embed: Callable[..., Ran]
) -> None:
    address = filled.server.address
    ran = embed(input_path=address, dicomweb_query="Modality=DX&PatientID=SECRET-*")
    assert ran.status == 0, ran.err
    assert without_ids(tmp_path / "out") == filled.expected
    assert image_ids(tmp_path / "out") == {
        f"{address}/{path}" for path in storage.list_paths(address)
    }
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"SECRET" not in path.read_bytes(), path
    assert "SECRET" not in ran.out + ran.err


def test_a_bad_line_loses_and_doubles_nothing(
    filled: Filled, tmp_path: Path, embed: Callable[..., Ran]
) -> None:
    over_a_bad_line(filled, tmp_path, embed)


@pytest.mark.slow
def test_a_bad_line_to_500_instances_loses_and_doubles_nothing(
    tmp_path: Path, tiny_model: Path, embed: Callable[..., Ran]
) -> None:
    (tmp_path / "store").mkdir()
    with filled_store(tmp_path / "store", tiny_model, 500) as store:
        over_a_bad_line(store, tmp_path, embed)


def over_a_bad_line(filled: Filled, tmp_path: Path, embed: Callable[..., Ran]) -> None:
    line = BadLine(filled.server.url.removesuffix("/dicom-web"), share=18 / len(filled.expected))
    with line.open() as address:
        ran = embed(input_path=f"dicomweb+{address}/dicom-web")
    assert ran.status == 0, ran.err
    assert set(line.happened) == set(FAULTS)
    assert without_ids(tmp_path / "out") == filled.expected
    assert len(table(tmp_path / "out", "embedded")) == len(filled.expected)


class Interrupted(BadLine):
    """A line to a server that is killed at its `at`-th request for an instance.

    Args:
        server: behind the line.
        at: the number of the request.
        pause: seconds until the server is started again; None is never.
    """

    def __init__(self, server: Orthanc, at: int, pause: float | None) -> None:
        super().__init__(f"http://127.0.0.1:{server.port}", share=0)
        self._server, self._at, self._pause = server, at, pause

    def decide(self, method: str, path: str) -> str:
        fault = super().decide(method, path)
        if self.requests[method] == self._at:
            self._server.kill()
            if self._pause is not None:
                threading.Timer(self._pause, self._server.start).start()
        return fault

    def forward(self, handler: QuietHandler, body: bytes, fault: str) -> None:
        try:
            super().forward(handler, body, fault)
        except OSError:  # the server is not there
            handler.close_connection = True


def test_a_server_that_is_killed_ends_the_run_which_is_then_taken_up(
    filled: Filled, tmp_path: Path, embed: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_EMBED_RETRY_SECONDS", "1")
    with Interrupted(filled.server, at=30, pause=None).open() as address:
        store = f"dicomweb+{address}/dicom-web"
        ran = embed(input_path=store)
        assert ran.status == 3
        assert re.search(rf"{re.escape(store)}/studies/\S+: gave up after 1 s", ran.err)
        assert not table(tmp_path / "out", "failures")
        done = len(records(tmp_path / "out"))
        assert done < len(filled.expected)
        filled.server.start()
        again = embed(input_path=store)
    assert again.status == 0, again.err
    assert not done or f"already there  {done}" in again.out
    assert without_ids(tmp_path / "out") == filled.expected


def test_a_server_that_is_restarted_is_waited_for(
    filled: Filled, tmp_path: Path, embed: Callable[..., Ran]
) -> None:
    with Interrupted(filled.server, at=30, pause=0.3).open() as address:
        ran = embed(input_path=f"dicomweb+{address}/dicom-web")
    assert ran.status == 0, ran.err
    assert without_ids(tmp_path / "out") == filled.expected


def test_instances_can_be_listed_inspected_read_and_verified(
    filled: Filled, tmp_path: Path, embed: Callable[..., Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    address = filled.server.address
    some = [f"{address}/{path}" for path in storage.list_paths(address)][:5]
    missing = f"{address}/studies/1.2/series/1.3/instances/1.4"
    (tmp_path / "list.txt").write_text("\n".join([*some, missing]))
    ran = embed(input_list=tmp_path / "list.txt")
    assert ran.status == 1
    (failed,) = table(tmp_path / "out", "failures")
    assert (failed["path"], failed["stage"]) == (missing, "read")
    assert image_ids(tmp_path / "out") == set(some)
    uid = some[0].rpartition("/")[2]
    assert np.array_equal(
        read_radiograph(some[0]).pixels, read_radiograph(filled.files / f"{uid}.dcm").pixels
    )
    assert main.guarded(inspect.main, [some[0]]) == 0
    out = ["--input_path", str(tmp_path / "out"), "--inputs"]
    assert main.guarded(verify.main, [*out, str(tmp_path / "list.txt")]) == 1
    capsys.readouterr()
    assert main.guarded(verify.main, [*out, some[0].partition("/instances/")[0]]) == 0
    assert "missing" not in capsys.readouterr().out


def test_a_query_selects_and_a_limit_ends(
    filled: Filled, tmp_path: Path, embed: Callable[..., Ran]
) -> None:
    address = filled.server.address
    query = "StudyDate=20220101-20230101"
    ran = embed("--limit=3", input_path=address, dicomweb_query=query)
    assert ran.status == 0, ran.err
    assert len(records(tmp_path / "out")) == 3
    assert embed(input_path=address, dicomweb_query=query).status == 0
    assert len(records(tmp_path / "out")) == len(filled.expected) // 2
    verified = ["--input_path", str(tmp_path / "out"), "--inputs", address]
    assert main.guarded(verify.main, [*verified, "--dicomweb_query", query]) == 0
    assert main.guarded(verify.main, verified) == 1
    nothing = embed(input_path=address, dicomweb_query="Modality=CT")
    assert nothing.status == 2
    assert "no image found" in nothing.err


def test_a_password_opens_the_store_and_is_in_no_message(
    tmp_path: Path, embed: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "server").mkdir()
    (tmp_path / "files").mkdir()
    with orthanc(tmp_path / "server", {"reader": "s3cret"}) as server:
        fill(server, tmp_path / "files", 2)
        with pytest.raises(PlaceUnavailable, match="HTTP 401"):
            list(storage.list_paths(server.address))
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_USER", "reader")
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_PASSWORD", "wr0ng")
        ran = embed(input_path=server.address)
        assert ran.status == 2
        assert "credentials are missing or not valid" in ran.err
        assert "wr0ng" not in ran.err
        monkeypatch.setenv("CXR_EMBED_DICOMWEB_PASSWORD", "s3cret")
        assert len(list(storage.list_paths(server.address))) == 2


@pytest.mark.slow
def test_a_killed_run_is_taken_up_again(
    filled: Filled, tmp_path: Path, tiny_model: Path, embed: Callable[..., Ran]
) -> None:
    output = tmp_path / "out"
    line = BadLine(filled.server.url.removesuffix("/dicom-web"), share=1.0, faults=("slow",))
    with line.open() as address:
        store = f"dicomweb+{address}/dicom-web"
        flags = {"input_path": store, "output_path": output, "model_path": tiny_model}
        with subprocess.Popen(
            command(**flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 300
            while len(records(output)) < 10 and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        done = without_ids(output)
        assert done.items() <= filled.expected.items()
        ran = embed(input_path=store)
    assert ran.status == 0
    assert f"already there  {len(done)}" in ran.out
    assert without_ids(output) == filled.expected
