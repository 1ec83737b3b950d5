"""Everything that can be wrong with an output is found, named, and mended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from written import SIZE, mimic_path, values, write_output

from cxr_embed.datasets.findings import NOTES, PROBLEMS, Findings
from cxr_embed.datasets.pack import FORMATS, Pack, pack
from cxr_embed.datasets.verify import repair, verify
from cxr_embed.errors import UsageError
from cxr_embed.records import Record, encode_record, frame
from cxr_embed.runs.fingerprint import OutputConfig, write_output_config

ROWS = 20
PATHS = [mimic_path(number) for number in range(ROWS)]
STEMS = [Path(path).stem for path in PATHS]
FINGERPRINT = {"model_sha256": "abc", "rendering": "cxr_foundation"}


@pytest.fixture(name="output")
def _output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    write_output(folder, PATHS, values(ROWS))
    write_output_config(str(folder), OutputConfig(FINGERPRINT, SIZE))
    return folder


def look(folder: Path, images: str | Path | None = None) -> Findings:
    return verify(str(folder), images and str(images), lambda total: lambda done: None)


def problems(found: Findings) -> dict[str, list[str]]:
    return _by_code(found, "problems")


def notes(found: Findings) -> dict[str, list[str]]:
    return _by_code(found, "notes")


def _by_code(found: Findings, kind: str) -> dict[str, list[str]]:
    codes: dict[str, list[str]] = {}
    for finding in getattr(found, kind):
        codes.setdefault(finding.code, []).append(finding.path)
    return codes


def test_a_sound_output_has_no_problems(output: Path) -> None:
    found = look(output)
    assert (found.embeddings, found.problems, found.notes) == (ROWS, [], [])


def write(path: Path, image_id: str, embedding: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_record(Record(image_id, embedding)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))


def _with(value: float) -> np.ndarray:
    changed = values(1)[0]
    changed[3] = value
    return changed


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty": ("torn", lambda path: path.write_bytes(b"")),
    "cut": ("torn", cut),
    "flipped bit": ("torn", flip),
    "appended": ("torn", lambda path: path.write_bytes(path.read_bytes() * 2)),
    "no example": ("malformed", lambda path: path.write_bytes(frame(b"nothing of the kind"))),
    "no feature": ("malformed", lambda path: path.write_bytes(frame(b""))),
    "short": ("wrong_size", lambda path: write(path, PATHS[3], np.arange(3, dtype=np.float32))),
    "nan": ("not_finite", lambda path: write(path, PATHS[3], _with(np.nan))),
    "inf": ("not_finite", lambda path: write(path, PATHS[3], _with(-np.inf))),
    "zeros": ("constant", lambda path: write(path, PATHS[3], np.zeros(SIZE, np.float32))),
    "other image": ("wrong_name", lambda path: write(path, "p/other.dcm", values(1, seed=9)[0])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_record_is_named_and_removed(output: Path, damage: str) -> None:
    code, do = DAMAGES[damage]
    path = output / f"{STEMS[3]}.tfrecord"
    do(path)
    found = look(output)
    assert problems(found) == {code: [path.name]}
    assert repair(str(output), found) == [path.name]
    assert not path.exists()
    assert problems(look(output)) == {}
    assert len(list(output.glob("*.tfrecord"))) == ROWS - 1


def test_a_record_that_cannot_be_read_is_named_and_kept(output: Path) -> None:
    (output / "x.tfrecord").symlink_to("nowhere")
    found = look(output)
    assert problems(found) == {"unreadable": ["x.tfrecord"]}
    assert repair(str(output), found) == []


def test_one_image_in_two_places(output: Path) -> None:
    write(output / f"p10/{STEMS[3]}.tfrecord", PATHS[3], values(ROWS)[3])
    found = look(output)
    assert problems(found) == {"doubled": [f"p10/{STEMS[3]}.tfrecord"]}
    assert f"{STEMS[3]}.tfrecord also contains {PATHS[3]}" in str(found.problems[0])
    repair(str(output), found)
    assert (output / f"{STEMS[3]}.tfrecord").exists()
    assert look(output).problems == []


def test_two_images_of_one_name_and_two_with_the_same_floats_are_noted(tmp_path: Path) -> None:
    same = values(3)
    same[2] = same[0]
    write_output(tmp_path, ["1/image.dcm", "2/image.dcm", "3/z.dcm"], same, mirror=True)
    found = look(tmp_path)
    assert found.problems == []
    assert notes(found) == {
        "same_id": ["2/image.tfrecord"], "same_embedding": ["3/z.tfrecord"],
        "no_config": ["_embedding_config.json"],
    }  # fmt: skip


def test_without_a_config_the_odd_one_out_is_the_rarer_size(output: Path) -> None:
    (output / "_embedding_config.json").unlink()
    first = output / f"{STEMS[0]}.tfrecord"
    write(first, PATHS[0], np.arange(3, dtype=np.float32))
    assert problems(look(output)) == {"wrong_size": [first.name]}


def test_the_config_is_looked_at(output: Path) -> None:
    run = output / "_runs/20260101T000000Z-abcdef"
    run.mkdir(parents=True)
    manifest = {"counts": {"embedded": 20}, "fingerprint": FINGERPRINT | {"rendering": "dicom"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = look(output)
    assert problems(found) == {"other_fingerprint": ["_embedding_config.json"]}
    assert found.problems[0].detail == "rendering"
    (output / "_embedding_config.json").write_text("{")
    found = look(output)
    assert problems(found) == {"bad_config": ["_embedding_config.json"]}
    assert repair(str(output), found) == []


@pytest.fixture(name="images")
def _images(tmp_path: Path) -> Path:
    for path in (*PATHS, "files/index.html"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"an image, as far as anybody asks here")
    return tmp_path / "files"


@pytest.mark.parametrize("layout", ["flat", "mirror"])
def test_inputs_without_record_are_missing(
    images: Path, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "made"
    for path, embedding in zip(PATHS, values(ROWS), strict=True):
        below = Path(path).relative_to("files").with_suffix(".tfrecord")
        write(output / (below if layout == "mirror" else below.name), path, embedding)
    records = sorted(output.rglob("*.tfrecord"))
    assert look(output, images).problems == []
    assert look(output, "files").problems == []
    records[2].unlink()
    records[5].unlink()
    (images / "p10/new.dcm").write_bytes(b"one more")
    (images.parent / PATHS[9]).unlink()
    found = look(output, "files")
    assert problems(found) == {"missing": ["files/p10/new.dcm", PATHS[2], PATHS[5]]}
    assert notes(found)["unexpected"] == [str(records[9].relative_to(output))]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(PATHS))
    assert problems(look(output, listed)) == {"missing": [PATHS[2], PATHS[5]]}


def test_what_was_skipped_on_purpose_is_not_missing_and_what_failed_says_why(
    images: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    for number in (1, 2, 3):
        (output / f"{STEMS[number]}.tfrecord").unlink()
    run = output / "_runs/20260101T000000Z-abcdef"
    run.mkdir(parents=True)
    (run / "skipped.csv").write_text(f"dicom_id,path,reason,detail\nx,{PATHS[1]},not_frontal,\n")
    (run / "failures.csv").write_text(
        f"dicom_id,path,stage,reason,detail\nx,{PATHS[2]},decode,truncated,\n"
    )
    found = look(output, "files")
    assert [str(problem) for problem in found.problems] == [
        f"missing {PATHS[2]}: failed, decode: truncated", f"missing {PATHS[3]}",
    ]  # fmt: skip
    assert found.skipped == 1


def test_sums_as_physionet_publishes_them(output: Path) -> None:
    (output / "LICENSE.txt").write_text("terms")
    files = sorted(path for path in output.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n" for path in files]
    (output / "SHA256SUMS.txt").write_text("".join(lines))
    assert look(output).problems == []
    write(output / f"{STEMS[4]}.tfrecord", PATHS[4], values(1, seed=5)[0])
    (output / f"{STEMS[5]}.tfrecord").unlink()
    (output / "LICENSE.txt").write_text("other terms")
    (output / "extra.txt").write_text("")
    found = look(output)
    assert problems(found) == {
        "sum_mismatch": [f"{STEMS[4]}.tfrecord", "LICENSE.txt"],
        "missing_file": [f"{STEMS[5]}.tfrecord"],
    }
    assert notes(found) == {"not_in_sums": ["extra.txt"]}
    assert repair(str(output), found) == [f"{STEMS[4]}.tfrecord"]
    (output / "SHA256SUMS.txt").write_text("nonsense\n")
    with pytest.raises(UsageError, match="line 1: not a SHA-256"):
        look(output)


@pytest.mark.parametrize("format_", FORMATS)
def test_packed_data_sets(output: Path, tmp_path: Path, format_: str) -> None:
    packed = tmp_path / "packed"
    wanted = Pack(str(output), str(packed), format=format_)
    pack(wanted, print, lambda total: lambda done: None)
    found = look(packed)
    assert (found.embeddings, found.problems, found.notes) == (ROWS, [], [])
    shard = next((packed / "data").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2 + 3])
    found = look(packed)
    assert problems(found)["sum_mismatch"] == [f"data/{shard.name}"]
    assert problems(found)["torn"] == [f"data/{shard.name}"]
    assert repair(str(packed), found) == [f"data/{shard.name}"]
    pack(wanted, print, lambda total: lambda done: None)
    assert shard.read_bytes() == whole
    assert look(packed).problems == []


def test_a_missing_shard_is_named(output: Path, tmp_path: Path) -> None:
    from cxr_embed.datasets import pack as packing

    packed = tmp_path / "packed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_SHARD_BYTES", 1)
        patch.setattr("cxr_embed.embeddings.record_files.ROWS_PER_PART", 8)
        pack(Pack(str(output), str(packed)), print, lambda total: lambda done: None)
    (packed / "data/embeddings-00001-of-00003.parquet").unlink()
    found = look(packed)
    gone = "data/embeddings-00001-of-00003.parquet"
    assert problems(found) == {"missing_shard": [gone], "missing_file": [gone]}


def test_a_card_whose_licence_was_filled_in_is_kept_by_packing_again(
    output: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    wanted = Pack(str(output), str(packed))
    pack(wanted, print, lambda total: lambda done: None)
    card = packed / "README.md"
    card.write_text(card.read_text().replace("# license:", "license: mit #"))
    assert problems(look(packed)) == {"sum_mismatch": ["README.md"]}
    pack(wanted, print, lambda total: lambda done: None)
    assert "license: mit" in card.read_text()
    assert look(packed).problems == []


def test_leftovers_of_killed_runs_are_noted_and_removed(output: Path) -> None:
    (output / ".cxr-embed-1234.tmp").write_bytes(b"half")
    found = look(output)
    assert (found.problems, notes(found)) == ([], {"leftover": [".cxr-embed-1234.tmp"]})
    assert repair(str(output), found) == [".cxr-embed-1234.tmp"]


@pytest.mark.parametrize("format_", [*FORMATS, "record"])
def test_one_file_alone(output: Path, tmp_path: Path, format_: str) -> None:
    file = output / f"{STEMS[3]}.tfrecord"
    if format_ != "record":
        pack(
            Pack(str(output), str(tmp_path / "packed"), format=format_), print,
            lambda total: lambda done: None,
        )  # fmt: skip
        file = next((tmp_path / "packed/data").iterdir())
    found = look(file)
    assert (found.problems, found.notes) == ([], [])
    assert found.embeddings == (1 if format_ == "record" else ROWS)
    cut(file)
    found = look(file)
    assert problems(found) == {"torn": [file.name]}
    assert repair(str(file), found) == [file.name]
    assert not file.exists()


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no embeddings in"):
        look(tmp_path)


def test_every_code_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/datasets.md").read_text()
    for code in (*PROBLEMS, *NOTES):
        assert f"`{code}`" in page
