"""`--watch`: an input that fills up is embedded as it fills."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_files import write_archive
from buckets import BadLine, emulator, spoken_to
from builders import GRADIENT, make_dicom
from dicomweb_server import Store
from running import Ran, records, run_here

from cxr_embed import storage
from cxr_embed.models import sharing
from cxr_embed.records import decode_record
from cxr_embed.runs.arrivals import Arrivals

IMAGES = [make_dicom(np.roll(GRADIENT, 31 * number)) for number in range(6)]
SECONDS = 0.1


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Watched:
    """One watch in this process, and what happens meanwhile in another thread."""

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.input, self.output = folder / "in", folder / "out"
        self.input.mkdir()
        self._model, self._capsys = model, capsys
        self.rounds = 0
        self.before_round: Callable[[], None] = lambda: None

    def put(self, number: int, *, name: str = "", data: bytes = b"") -> None:
        (self.input / (name or f"{number}.dcm")).write_bytes(data or IMAGES[number])

    def has(self, *numbers: int) -> bool:
        return all((self.output / f"{number}.tfrecord").exists() for number in numbers)

    def wait_for(self, *numbers: int) -> None:
        wait(lambda: self.has(*numbers))

    def wait_rounds(self, count: int = 3) -> None:
        until = self.rounds + count
        wait(lambda: self.rounds >= until)

    def tables(self, name: str) -> list[str]:
        """Returns the rows of all runs."""
        rows = []
        for table in sorted((self.output / "_runs").glob(f"*/{name}.csv")):
            rows += table.read_text().splitlines()[1:]
        return rows

    def runs(self) -> int:
        return len(list((self.output / "_runs").glob("*/manifest.json")))

    def run(self, act: Callable[[], None], number: int = signal.SIGINT, **flags: Any) -> Ran:
        """Watches until `act` has ended, then sends a signal."""
        errors: list[BaseException] = []

        def meanwhile() -> None:
            try:
                act()
            except BaseException as error:
                errors.append(error)
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=meanwhile)
        # The watch sets its own handlers; a signal after it must not end the tests.
        before = [(n, signal.signal(n, signal.SIG_IGN)) for n in (signal.SIGINT, signal.SIGTERM)]
        try:
            thread.start()
            ran = run_here(
                self._capsys,
                **{"input_path": self.input, "output_path": self.output, "watch": SECONDS}
                | {"model_path": self._model}
                | flags,
            )
            thread.join()
        finally:
            for each, handler in before:
                signal.signal(each, handler)
        assert not errors, (errors, ran.err)
        assert "Traceback" not in ran.err
        return ran


@pytest.fixture
def watched(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Watched:  # fmt: skip
    found = Watched(tmp_path, tiny_model, capsys)
    begin = Arrivals.begin_listing

    def count(self: Arrivals) -> object:
        found.before_round()
        found.rounds += 1
        return begin(self)

    monkeypatch.setattr(Arrivals, "begin_listing", count)
    return found


def test_what_arrives_is_embedded_with_one_model_and_a_run_for_each_round_that_did_something(
    watched: Watched, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    loads: list[object] = []
    load = sharing.load
    monkeypatch.setattr(sharing, "load", lambda settings: loads.append(settings) or load(settings))
    sharing._latest.clear()
    sharing._loaded.clear()  # another test's garbage may still hold the model

    def act() -> None:
        watched.wait_rounds()
        assert not watched.output.exists()  # nothing was found, so nothing is written
        watched.put(0)
        watched.wait_for(0)
        watched.wait_rounds()
        assert watched.runs() == 1
        watched.put(1)
        watched.put(2)
        watched.wait_for(1, 2)
        (watched.input / "0.dcm").unlink()
        watched.wait_rounds()

    ran = watched.run(act)
    assert ran.status == 0, ran.err
    assert len(loads) == 1
    assert watched.runs() in (2, 3)
    assert len(watched.tables("embedded")) == 3
    assert "embedded       3\n" in ran.out
    assert f"{watched.output}/_runs/*\n" in ran.out
    assert ran.err.count(" embedded, 0 skipped, 0 failed") == watched.runs()

    watched.put(0)
    plain = run_here(
        capsys, input_path=watched.input, output_path=tmp_path / "plain", model_path=tiny_model
    )
    assert plain.status == 0
    assert records(watched.output) == records(tmp_path / "plain")


def test_a_file_that_is_being_written_waits(watched: Watched) -> None:
    size = 1 + len(IMAGES[0]) // 6
    path = watched.input / "0.dcm"

    def write_more() -> None:
        written = path.stat().st_size if path.exists() else 0
        with path.open("ab") as file:
            file.write(IMAGES[0][written : written + size])

    watched.before_round = write_more
    ran = watched.run(lambda: watched.wait_for(0))
    assert ran.status == 0, ran.err
    assert watched.tables("failures") == []
    assert watched.rounds >= 7  # six pieces, and once more to see that none has come


def test_a_failed_image_is_tried_again_only_if_it_changes(watched: Watched) -> None:
    def act() -> None:
        watched.put(1, data=IMAGES[1][:400])
        watched.put(2, data=IMAGES[2][:400])
        wait(lambda: len(watched.tables("failures")) == 2)
        watched.wait_rounds(5)
        assert len(watched.tables("failures")) == 2
        watched.put(1)
        watched.wait_for(1)

    ran = watched.run(act, number=signal.SIGTERM)
    assert ran.status == 1
    assert "failed         1\n" in ran.out
    assert f"{watched.output}/_runs/*/failures.csv\n" in ran.out


def test_what_an_earlier_run_has_embedded_is_left_alone(watched: Watched) -> None:
    watched.put(0)
    os.utime(watched.input / "0.dcm", (0, 0))
    assert watched.run(lambda: watched.wait_for(0)).status == 0

    def act() -> None:
        watched.wait_rounds()
        assert watched.runs() == 1

    ran = watched.run(act)
    assert ran.status == 0
    assert "already there  1\n" in ran.out


def test_more_failures_than_allowed_end_it(watched: Watched) -> None:
    def act() -> None:
        watched.put(0, data=IMAGES[0][:400])
        wait(lambda: len(watched.tables("failures")) == 1)
        watched.put(1, data=IMAGES[1][:400])
        wait(lambda: len(watched.tables("failures")) == 2)
        rounds = watched.rounds
        time.sleep(5 * SECONDS)
        assert watched.rounds <= rounds + 1

    ran = watched.run(act, max_failures=1)
    assert ran.status == 1
    assert "--max_failures" in ran.err


def test_a_folder_that_is_gone_for_a_time_is_looked_for_again(watched: Watched) -> None:
    away = watched.input.with_name("away")

    def act() -> None:
        watched.wait_rounds()
        watched.input.rename(away)
        watched.wait_rounds()
        away.rename(watched.input)
        watched.put(0)
        watched.wait_for(0)

    ran = watched.run(act)
    assert ran.status == 0, ran.err
    assert ran.err.count("does not exist; trying again every 0.1 s") == 1
    assert "reached again" in ran.err


def test_two_images_of_one_name_end_it_as_they_refuse_a_run(watched: Watched) -> None:
    def act() -> None:
        watched.put(0)
        watched.wait_for(0)
        (watched.input / "s").mkdir()
        watched.put(0, name="s/0.dcm")
        rounds = watched.rounds
        time.sleep(5 * SECONDS)
        assert watched.rounds <= rounds + 2

    ran = watched.run(act)
    assert ran.status == 2
    assert "--output_layout=mirror" in ran.err.splitlines()[-1]
    assert "embedded       1\n" in ran.out


def test_archives_arrive_too_and_a_damaged_one_is_left_out(watched: Watched) -> None:
    damaged = watched.input / "b.zip"

    def act() -> None:
        watched.wait_rounds()
        write_archive(watched.input / "a.tar.gz", {"0.dcm": IMAGES[0], "1.dcm": IMAGES[1]})
        watched.wait_for(0, 1)
        damaged.write_bytes(b"PK\3\4 and no more")
        watched.wait_rounds(5)
        watched.put(2)
        watched.wait_for(2)

    ran = watched.run(act, search_archives=True)
    assert ran.status == 1
    assert ran.err.count("left out until it changes") == 1
    assert f"{damaged} could not be read" in ran.err

    def mend() -> None:
        watched.wait_rounds()
        write_archive(damaged, {"3.dcm": IMAGES[3]})
        watched.wait_for(3)

    damaged.unlink()
    assert watched.run(mend, search_archives=True).status == 0


def test_a_bucket_that_does_not_answer_is_asked_again(watched: Watched) -> None:
    line: BadLine

    def act() -> None:
        watched.wait_rounds(2)
        for number in (0, 1):
            storage.write_whole(f"gs://bucket/in/{number}.dcm", IMAGES[number])
        watched.wait_for(0, 1)
        line.share = 1.0
        watched.wait_rounds(2)
        line.share = 0.0
        storage.write_whole("gs://bucket/in/2.dcm", IMAGES[2])
        watched.wait_for(2)

    with emulator() as upstream:
        line = BadLine(upstream, 0.0, ("unavailable",))
        with line.open() as address, spoken_to(address, retry_seconds=0.3):
            ran = watched.run(act, input_path="gs://bucket/in")
    assert ran.status == 0, ran.err
    assert "trying again every 0.1 s" in ran.err
    assert "reached again" in ran.err
    assert watched.tables("failures") == []
    assert decode_record(records(watched.output)["2.tfrecord"]).image_id == "gs://bucket/in/2.dcm"


def test_an_image_of_a_service_that_does_not_answer_is_tried_again(watched: Watched) -> None:
    store = Store(2)
    store.content = store.content.replace(b"image", IMAGES[0])
    store.names, arriving = [], store.names
    outage = threading.Event()

    def answers(handler: Any, path: str) -> bool:
        if not (outage.is_set() and path.endswith("1.4.1")):
            return False
        handler.send_response(503)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    store.answers = answers

    def act() -> None:
        watched.wait_rounds()
        store.names = arriving[1:]
        wait((watched.output / "1.4.0.tfrecord").exists)
        outage.set()
        store.names = arriving
        wait(lambda: watched.runs() >= 2)
        outage.clear()
        wait((watched.output / "1.4.1.tfrecord").exists)

    with store.open() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_EMBED_RETRY_SECONDS", "0.3")
        ran = watched.run(act, input_path=address, dicomweb_query="Modality=DX")
    assert ran.status == 0, ran.err
    assert "trying again every 0.1 s" in ran.err
    assert watched.tables("failures") == []
    assert all("Modality=DX" in path for path, _ in store.asked if "?" in path)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"watch": -1}, "watch"),
        ({"watch": "nan"}, "--watch nan: pass a number of seconds"),
        ({"limit": 5}, "--limit cannot be used with --watch"),
        ({"runner": "PrismRunner"}, "not with --runner=PrismRunner"),
        ({"input_path": "/nowhere"}, "/nowhere does not exist"),
        ({"model_path": "/nowhere"}, "--model_path /nowhere does not exist"),
    ],
)
def test_a_mistake_ends_it_at_once(
    watched: Watched, capsys: pytest.CaptureFixture[str], tiny_model: Path, flags: dict[str, Any],
    complaint: str,
) -> None:  # fmt: skip
    ran = run_here(
        capsys,
        **{"input_path": watched.input, "output_path": watched.output, "watch": 1}
        | {"model_path": tiny_model}
        | flags,
    )
    assert ran.status == 2
    assert complaint in ran.err.splitlines()[-1]
    assert not watched.output.exists()
