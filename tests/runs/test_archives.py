"""A resumed run does not open an archive whose images are all done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archive_files import KINDS, write_archive
from buckets import emulator, spoken_to
from builders import GRADIENT, make_dicom
from running import records, run_here, table

from cxr_embed import storage
from cxr_embed.storage.archives import Archives

IMAGES = {f"s/{number}.dcm": make_dicom(np.roll(GRADIENT, 31 * number)) for number in range(3)}
FILES = IMAGES | {"s/README.txt": b"not an image"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The archives that were opened, in order; to be cleared."""
    found: list[str] = []
    unwatched = Archives._open

    def note(self: Archives, archive: str, *arguments: int) -> object:
        found.append(archive)
        return unwatched(self, archive, *arguments)

    monkeypatch.setattr(Archives, "_open", note)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_closed_until_it_changes_or_a_record_is_gone(
    kind: str, opened: list[str], tmp_path: Path, tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    archive = write_archive(tmp_path / f"in/a.{kind}", FILES)
    out = tmp_path / "out"
    flags = {
        "input_path": tmp_path / "in", "output_path": out, "model_path": tiny_model,
        "search_archives": True,
    }  # fmt: skip
    assert run_here(capsys, **flags).status == 0
    assert opened
    first = records(out)

    opened.clear()
    again = run_here(capsys, **flags)
    assert again.status == 0, again.err
    assert "3 images already there" in again.err
    assert opened == []

    (out / "1.tfrecord").unlink()
    assert run_here(capsys, **flags).status == 0
    assert [row["path"] for row in table(out, "embedded")] == [f"{archive}!/s/1.dcm"]
    assert records(out) == first
    opened.clear()

    write_archive(archive, FILES | {"s/new.dcm": IMAGES["s/0.dcm"]})
    assert run_here(capsys, **flags).status == 0
    assert set(records(out)) == set(first) | {"new.tfrecord"}
    assert opened

    opened.clear()
    assert run_here(capsys, **flags).status == 0
    assert opened == []
    assert run_here(capsys, overwrite=True, **flags).status == 0
    assert len(table(out, "embedded")) == 4


def test_it_is_opened_while_an_image_has_failed(
    opened: list[str], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = write_archive(tmp_path / "a.zip", IMAGES | {"s/bad.dcm": IMAGES["s/0.dcm"][:300]})
    flags = {"input_path": archive, "output_path": tmp_path / "out", "model_path": tiny_model}
    assert run_here(capsys, **flags).status == 1
    opened.clear()
    assert run_here(capsys, **flags).status == 1
    assert opened == [str(archive)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with emulator() as address, spoken_to(address):
        yield "gs://bucket"


def test_it_stays_closed_in_a_bucket_too(
    bucket: str, opened: list[str], tmp_path: Path, tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for kind in ("zip", "tar.gz"):
        named = {f"{kind}/{name[:-4]}.{kind}.dcm": data for name, data in IMAGES.items()}
        data = write_archive(tmp_path / f"a.{kind}", named).read_bytes()
        storage.write_whole(f"{bucket}/in/a.{kind}", data)
    flags = {
        "input_path": f"{bucket}/in", "output_path": f"{bucket}/out", "model_path": tiny_model,
        "search_archives": True,
    }  # fmt: skip
    assert run_here(capsys, **flags).status == 0
    assert set(opened) == {f"{bucket}/in/a.zip", f"{bucket}/in/a.tar.gz"}
    opened.clear()
    again = run_here(capsys, **flags)
    assert "6 images already there" in again.err
    assert opened == []
