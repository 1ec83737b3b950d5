"""Embeddings in archives are those of the folder, and other places are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from archive_files import KINDS, flip, write_archive
from written import values, write_output

from cxr_embed import load_embeddings
from cxr_embed.cli import main as cli_main
from cxr_embed.datasets.pack import Pack, pack
from cxr_embed.errors import UsageError
from cxr_embed.heads import mapped

ROWS, SIZE = 40, 16
NAMES = [f"in/p{number % 3}/{number:02d}.dcm" for number in range(ROWS)]


class Archived(NamedTuple):
    """An output in a folder and in an archive, and packed as well."""

    folder: str
    archive: str
    packed: str


def contents_of(folder: Path) -> dict[str, bytes]:
    """Returns the files below a folder, the last ones first, as a disk may list them."""
    paths = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module", params=KINDS)
def archived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    root = tmp_path_factory.mktemp("archived")
    write_output(root / "out", NAMES, values(ROWS, SIZE))
    pack(Pack(str(root / "out"), str(root / "packed")), print, lambda total: lambda done: None)
    archive = write_archive(root / f"out.{request.param}", contents_of(root / "out"))
    packed = write_archive(root / f"packed.{request.param}", contents_of(root / "packed"))
    return Archived(str(root / "out"), str(archive), str(packed))


def test_an_archive_is_read_as_the_folder_that_it_was_made_of(archived: Archived) -> None:
    expected = load_embeddings(archived.folder)
    for path in (archived.archive, f"{archived.archive}!/", archived.packed):
        found = load_embeddings(path)
        assert (found.ids, found.image_ids) == (expected.ids, expected.image_ids)
        np.testing.assert_array_equal(found.values, expected.values)
    one = load_embeddings(f"{archived.archive}!/07.tfrecord")
    np.testing.assert_array_equal(one.values[0], expected.values[expected.ids.index("07")])
    few = load_embeddings(archived.archive, ["03", "01"])
    assert few.ids == ["01", "03"]


def test_a_head_is_trained_on_what_is_in_an_archive(archived: Archived) -> None:
    found, expected = (mapped.open_embeddings(p) for p in (archived.archive, archived.folder))
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.ids == expected.ids
    assert found.fingerprint == expected.fingerprint


def test_the_verbs_take_an_archive(archived: Archived, tmp_path: Path, succeed: Any) -> None:
    assert "problems    0" in succeed("verify", "--input_path", archived.archive).out
    assert "problems    0" in succeed("verify", "--input_path", archived.packed).out
    succeed("pack", "--input_path", archived.archive, "--output_path", f"{tmp_path}/packed")
    here, there = contents_of(tmp_path / "packed"), contents_of(Path(archived.folder, "../packed"))
    assert {name: here[name] for name in here if name.startswith("data/")} == {
        name: there[name] for name in there if name.startswith("data/")
    }
    page = tmp_path / "page.html"
    succeed("report", "--input_path", archived.archive, "--output_path", str(page), "--map=pca")
    assert f"{ROWS} embeddings" in page.read_text()
    hits = [
        succeed("search", "--input_path", path, "--query", query, "--k=3").out.splitlines()[1:]
        for path, query in (
            (archived.folder, "05"), (archived.archive, "05"),
            (archived.archive, f"{archived.archive}!/05.tfrecord"),
        )
    ]  # fmt: skip
    assert hits[0] == hits[1] == hits[2]


def test_nothing_is_removed_from_an_archive(
    archived: Archived, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_main.main(["verify", "--input_path", archived.archive, "--repair"]) == 2
    assert capsys.readouterr().err.endswith("can be read only\n")


def test_a_damaged_archive_is_one_line(
    archived: Archived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / Path(archived.archive).name
    copy.write_bytes(
        Path(archived.archive).read_bytes()[: Path(archived.archive).stat().st_size // 2]
    )
    for verb in (["verify"], ["pack", "--output_path", f"{tmp_path}/p"]):
        assert cli_main.main([*verb, "--input_path", str(copy)]) == 2
        message = capsys.readouterr().err
        assert str(copy) in message
        assert message.count("\n") == 1


def test_a_damaged_member_is_a_problem_of_this_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", NAMES[:4], values(4, SIZE))
    archive = write_archive(tmp_path / "out.zip", contents_of(tmp_path / "out"))
    flip(archive, archive.read_bytes().index(b"02.tfrecord") + 40)
    assert cli_main.main(["verify", "--input_path", str(archive)]) == 1
    assert f"unreadable 02.tfrecord: {archive}!/02.tfrecord: damaged" in capsys.readouterr().out


def test_a_store_of_images_holds_no_embeddings() -> None:
    with pytest.raises(UsageError, match=r"dicomweb\+https://host/root holds images"):
        load_embeddings("dicomweb+https://host/root")
