"""A report describes an output in any state; only a path with nothing at it is a mistake."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from written import mimic_path, values, write_output

from cxr_embed.cli import main as cli_main
from cxr_embed.cli import report
from cxr_embed.datasets.pack import Pack, pack
from cxr_embed.records import Record, encode_record, frame

PATHS = [mimic_path(number) for number in range(30)]
RUN = "_runs/20260101T000000.000Z-abcdef"
EMBEDDED = "dicom_id,path,record,rows,columns,warnings,bytes,crc32c,floats,file_state\n"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Records as the original toolkit leaves them: no tables, no settings."""
    folder = tmp_path / "embeddings"
    write_output(folder, PATHS, values(30))
    return folder


@pytest.fixture
def words_of(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Makes a report and returns its words; it must not fail, nor show a traceback."""

    def make(output: Path) -> str:
        page = output.parent / "report.html"
        arguments = [f"--input_path={output}", f"--output_path={page}", "--map=pca", "--images=3"]
        status = cli_main.guarded(report.main, arguments)
        captured = capsys.readouterr()
        assert status == 0, captured.err
        assert "Traceback" not in captured.err
        text = re.sub(r"<(style|script).*?</\1>", "", page.read_text(), flags=re.DOTALL)
        return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", text)))

    return make


def test_records_of_the_original_toolkit(output: Path, words_of: Callable[[Path], str]) -> None:
    words = words_of(output)
    assert "There are only records: no run tables and no settings" in words
    assert "All 30, one point each" in words
    assert "Speed" not in words


def test_damaged_records_are_a_section(output: Path, words_of: Callable[[Path], str]) -> None:
    names = sorted(output.glob("*.tfrecord"))
    names[0].write_bytes(names[0].read_bytes()[:-1])
    names[1].write_bytes(frame(b""))
    names[2].write_bytes(encode_record(Record(PATHS[2], np.ones(3, np.float32))))
    names[3].write_bytes(encode_record(Record(PATHS[3], np.full(8, np.nan, np.float32))))
    names[4].unlink()
    names[4].symlink_to("nowhere")
    words = words_of(output)
    assert "embeddings 25" in words
    assert "Damaged records are left out: 5" in words
    for reason in (
        "bytes where one record needs", "the feature 'image/id' is missing",
        "3 floats; the others have 8", "NaN or infinity", "it cannot be read: No such file",
    ):  # fmt: skip
        assert reason in words


def test_only_damaged_records(output: Path, words_of: Callable[[Path], str]) -> None:
    for path in output.glob("*.tfrecord"):
        path.write_bytes(b"torn")
    words = words_of(output)
    assert "There are no usable embeddings" in words
    assert "Damaged records are left out: 30" in words


def test_an_empty_output(tmp_path: Path, words_of: Callable[[Path], str]) -> None:
    (tmp_path / "empty").mkdir()
    words = words_of(tmp_path / "empty")
    assert "There are no usable embeddings" in words
    assert "embeddings 0" in words
    assert "Near-duplicates" not in words


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_embeddings(tmp_path: Path, words_of: Callable[[Path], str], count: int) -> None:
    write_output(tmp_path / "few", PATHS[:count], values(count))
    assert f"All {count}, one point each" in words_of(tmp_path / "few")


def test_equal_embeddings(tmp_path: Path, words_of: Callable[[Path], str]) -> None:
    write_output(tmp_path / "equal", PATHS, np.zeros((30, 8), np.float32))
    assert "1 group of 30 images" in words_of(tmp_path / "equal")


def test_a_run_that_was_killed(output: Path, words_of: Callable[[Path], str]) -> None:
    shards = output / RUN / "shards"
    shards.mkdir(parents=True)
    rows = [f"embedded,{Path(p).stem},{p},r,100,80,,1,00000000,8,x\n" for p in PATHS[:20]]
    (shards / "a.csv").write_text("".join(rows) + "embedded,torn")
    words = words_of(output)
    assert "Runs without a manifest, killed or still running: 1 of 1" in words
    assert "Latest outcome of each of 20 images" in words
    assert "The output has 10 more records than the tables" in words


def test_a_run_that_died_before_its_first_record(
    tmp_path: Path, words_of: Callable[[Path], str]
) -> None:
    run = tmp_path / "out" / RUN
    run.mkdir(parents=True)
    (run / "failures.csv").write_text(
        "dicom_id,path,stage,reason,detail\na,in/a.dcm,decode,truncated,too short\n"
    )
    words = words_of(tmp_path / "out")
    assert "There are no usable embeddings" in words
    assert "truncated" in words


def test_records_that_were_removed(output: Path, words_of: Callable[[Path], str]) -> None:
    run = output / RUN
    run.mkdir(parents=True)
    (run / "embedded.csv").write_text(
        EMBEDDED + "".join(f"x{n},in/x{n}.dcm,r,1,1,,1,0,8,x\n" for n in range(33))
    )
    (run / "manifest.json").write_text(json.dumps({"ended": "machine_fault"}))
    words = words_of(output)
    assert "Images that the tables call embedded, but that have no record: 3" in words
    assert "machine fault" in words


@pytest.mark.parametrize(
    "manifest",
    [
        b"{", b"[]", b'{"counts": 3, "seconds": [], "command": {}, "started": 7}',
        b'{"counts": {"embedded": NaN, "skipped": {"a": "b"}}, "images_per_second": "fast"}',
        b'{"counts": {"embedded": 30}, "seconds": {"read": "x"}, "fingerprint": 4}',
    ],
)  # fmt: skip
def test_damaged_files_beside_the_records(
    output: Path, words_of: Callable[[Path], str], manifest: bytes
) -> None:
    run = output / RUN
    run.mkdir(parents=True)
    (run / "manifest.json").write_bytes(manifest)
    (run / "embedded.csv").write_bytes(b"\0\xff,path\n\0,\xfe\n")
    (output / "_embedding_config.json").write_bytes(b"{")
    words = words_of(output)
    assert "_embedding_config.json is damaged" in words
    assert "All 30, one point each" in words


@pytest.mark.parametrize("format_", ["parquet", "npz", "tfrecord"])
def test_packed_data_sets(output: Path, words_of: Callable[[Path], str], format_: str) -> None:
    packed = output.parent / "packed"
    pack(Pack(str(output), str(packed), format_), print, lambda total: lambda done: None)
    assert "This is a packed data set" in words_of(packed)
    file = next(path for path in packed.rglob("embeddings*") if path.is_file())
    words = words_of(file)
    assert "All 30, one point each" in words
    assert "_embedding_config.json is damaged" not in words
    file.write_bytes(file.read_bytes()[:200])
    words = words_of(packed)
    assert "Damaged records are left out: 1," in words
    assert file.name in words


def test_several_kinds(output: Path, words_of: Callable[[Path], str]) -> None:
    packed = output.parent / "packed"
    pack(Pack(str(output), str(packed)), print, lambda total: lambda done: None)
    packed.rename(output / "packed")
    words = words_of(output)
    assert "several kinds (parquet, records): only records were read" in words
    assert "All 30, one point each" in words


def test_nothing_at_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("for people")
    for name in ("missing", "notes.txt", "missing.parquet"):
        arguments = [f"--input_path={tmp_path / name}", f"--output_path={tmp_path}/r.html"]
        assert cli_main.guarded(report.main, arguments) == 2
        assert "is neither a folder nor a file of embeddings" in capsys.readouterr().err
    shutil.rmtree(tmp_path)
