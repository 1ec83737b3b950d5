"""A place is one class: what a new one has to have, and that everything works in it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np
import pytest
from buckets import upload
from builders import GRADIENT, make_dicom

import cxr_embed
from cxr_embed import storage
from cxr_embed.cli import main as cli_main
from cxr_embed.storage.files import Admit, Entry, FileTooLarge, Place, StoredFile


class Memory(Place):
    """Files in a dictionary, with no more methods than a place has to have."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def check_name(self, path: str) -> str | None:
        return None if path.startswith("memory://shelf/") else "there is only one shelf"

    def list_files(self, folder: str) -> Iterator[Entry]:
        start = f"{folder.rstrip('/')}/"
        for path in sorted(self.files):
            if path.startswith(start):
                yield Entry(path.removeprefix(start), len(self.files[path]))

    def exists(self, path: str) -> bool:
        return path in self.files

    def size(self, path: str) -> int:
        return len(self.read_bytes(path))

    def read_file(self, path: str, admit: Admit | None = None) -> StoredFile:
        if path not in self.files:
            raise FileNotFoundError(f"{path} does not exist")
        data = self.files[path]
        if admit and (limit := admit(data[: 64 << 10])) < len(data):
            raise FileTooLarge(path, len(data), limit)
        return StoredFile(data, f"{google_crc32c.value(data):08x}")

    def read_range(self, path: str, start: int, length: int) -> bytes:
        return self.read_bytes(path)[start : start + length]

    def write_whole(self, path: str, data: bytes, *, replace: bool = False) -> None:
        if not replace and self.files.get(path, data) != data:
            raise storage.OtherContent(path)
        self.files[path] = data

    @contextlib.contextmanager
    def open_whole(self, path: str, *, replace: bool = False) -> Iterator[IO[bytes]]:
        file = io.BytesIO()
        yield file
        self.write_whole(path, file.getvalue(), replace=replace)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def why_not_writable(self, folder: str) -> str | None:
        return None


class ReadOnly(Memory):
    """The same, with only what a place has that is read."""

    write_whole, open_whole = Place.write_whole, Place.open_whole
    remove, why_not_writable = Place.remove, Place.why_not_writable


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Memory:
    place = Memory()
    monkeypatch.setitem(storage.PLACES, "memory", place)  # the one line
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return place


def test_images_models_outputs_and_packed_sets_may_lie_in_a_new_place(
    memory: Memory, tiny_model: Path, succeed: Any
) -> None:
    shelf = "memory://shelf"
    for number in range(3):
        storage.write_whole(f"{shelf}/in/{number}.dcm", make_dicom(np.roll(GRADIENT, 99 * number)))
    upload(tiny_model, f"{shelf}/model")
    flags = (f"--input_path={shelf}/in/*.dcm", f"--output_path={shelf}/out")
    shown = succeed("run", *flags, f"--model_path={shelf}/model")
    assert "embedded       3\n" in shown.out
    shown = succeed("run", *flags, f"--model_path={shelf}/model")
    assert "already there  3\n" in shown.out
    succeed("pack", f"--input_path={shelf}/out", f"--output_path={shelf}/packed")
    shown = succeed("verify", f"--input_path={shelf}/out", f"--inputs={shelf}/in")
    assert "problems    0\n" in shown.out
    packed = cxr_embed.load_embeddings(f"{shelf}/packed")
    assert packed.ids == ["0", "1", "2"]
    succeed("report", f"--input_path={shelf}/packed", f"--output_path={shelf}/page.html",
       "--map=pca")  # fmt: skip
    assert f"{shelf}/page.html" in memory.files


def test_a_place_that_is_only_read_refuses_outputs_before_anything_is_read(
    memory: Memory, tiny_model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = ReadOnly()
    place.files["memory://shelf/in/0.dcm"] = make_dicom()
    monkeypatch.setitem(storage.PLACES, "memory", place)
    flags = ["--input_path=memory://shelf/in", f"--model_path={tiny_model}"]
    assert cli_main.main(["run", *flags, "--output_path=memory://shelf/out"]) == 2
    message = capsys.readouterr().err
    assert "memory://shelf/out can be read only" in message
    assert list(place.files) == ["memory://shelf/in/0.dcm"]
    for act in (
        lambda path: storage.write_whole(path, b"x"), storage.open_whole, storage.remove
    ):  # fmt: skip
        with pytest.raises(OSError, match="memory://shelf/x can be read only"):
            act("memory://shelf/x")


def test_an_address_that_is_not_of_the_place_is_refused(
    memory: Memory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_main.main(["verify", "--input_path=memory://cellar/x"]) == 2
    expected = "cxr-embed: --input_path memory://cellar/x: there is only one shelf\n"
    assert capsys.readouterr().err == expected
