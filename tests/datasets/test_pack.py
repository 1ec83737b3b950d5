"""Packed data sets: what is in them, and that they are whole or not there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import mimic_path, values, write_output

from cxr_embed import storage
from cxr_embed.datasets import pack as packing
from cxr_embed.datasets.pack import FORMATS, Pack, pack
from cxr_embed.datasets.shards import Result
from cxr_embed.embeddings.loading import load_embeddings
from cxr_embed.errors import UsageError
from cxr_embed.runs.fingerprint import OutputConfig, read_output_config, write_output_config

ROWS, SIZE = 2500, 6
PATHS = [mimic_path(number) for number in range(ROWS)]


@pytest.fixture(scope="module", name="output")
def _output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    write_output(folder, PATHS, values(ROWS, SIZE))
    write_output_config(
        str(folder), OutputConfig({"model_sha256": "abc", "rendering": "cxr_foundation"}, SIZE)
    )
    return folder


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts, 2,048 rows, a shard."""
    monkeypatch.setattr(packing, "_SHARD_BYTES", 2048 * SIZE * 4)


def run(output: Path, packed: Path, **options: Any) -> Result:
    return pack(Pack(str(output), str(packed), **options), print, lambda total: lambda done: None)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_packed_comes_back(output: Path, tmp_path: Path, format_: str) -> None:
    result = run(output, tmp_path / "packed", format=format_)
    assert result.written == (1 if format_ == "npz" else 2)
    loaded = load_embeddings(tmp_path / "packed")
    assert loaded.ids == [Path(path).stem for path in PATHS]
    assert loaded.image_ids == PATHS
    np.testing.assert_array_equal(loaded.values, values(ROWS, SIZE))


@pytest.mark.parametrize("format_", FORMATS)
def test_only_some_ids_of_it(output: Path, tmp_path: Path, format_: str) -> None:
    run(output, tmp_path / "packed", format=format_)
    wanted = [Path(PATHS[number]).stem for number in (3, 1500, 2400)]
    loaded = load_embeddings(tmp_path / "packed", wanted)
    assert loaded.ids == wanted
    np.testing.assert_array_equal(loaded.values, values(ROWS, SIZE)[[3, 1500, 2400]])


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_records_always_give_the_same_bytes(
    output: Path, tmp_path: Path, format_: str
) -> None:
    run(output, tmp_path / "one", format=format_)
    shutil.copytree(output, tmp_path / "copy")
    run(tmp_path / "copy", tmp_path / "two", format=format_)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("format_", FORMATS)
def test_one_format_packs_into_another(output: Path, tmp_path: Path, format_: str) -> None:
    run(output, tmp_path / "first", format=format_)
    for other in FORMATS:
        run(tmp_path / "first", tmp_path / other, format=other)
        again = load_embeddings(tmp_path / other)
        assert again.image_ids == PATHS
        np.testing.assert_array_equal(again.values, values(ROWS, SIZE))
    assert read_output_config(str(tmp_path / "npz")) == read_output_config(str(output))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_killed_pack_goes_on_with_the_shards_that_stand(
    output: Path, tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(output, tmp_path / "whole", format=format_)
    killed = tmp_path / "killed"
    write, open_ = storage.write_whole, storage.open_whole

    def dies(path: str, data: bytes, *, replace: bool = False) -> None:
        if Path(path).name.startswith("embeddings-00001"):
            raise KeyboardInterrupt
        write(path, data, replace=replace)

    def opens(path: str, *, replace: bool = False) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_whole", dies)
    monkeypatch.setattr(storage, "open_whole", opens)
    with pytest.raises(KeyboardInterrupt):
        run(output, killed, format=format_)
    monkeypatch.setattr(storage, "write_whole", write)
    monkeypatch.setattr(storage, "open_whole", open_)
    assert "SHA256SUMS.txt" not in files(killed)
    with pytest.raises(UsageError, match=r"not whole|no embeddings"):
        load_embeddings(killed)
    (killed / ".cxr-embed-0123.tmp").write_bytes(b"left by the dead one")
    result = run(output, killed, format=format_)
    assert (result.kept, result.written) == ((0, 1) if format_ == "npz" else (1, 1))
    assert files(killed) == files(tmp_path / "whole")


def test_packing_again_changes_nothing(output: Path, tmp_path: Path) -> None:
    run(output, tmp_path / "packed")
    before = files(tmp_path / "packed")
    result = run(output, tmp_path / "packed")
    assert (result.kept, result.written) == (2, 0)
    assert files(tmp_path / "packed") == before


def test_another_packed_data_set_is_replaced_only_when_told_to(
    output: Path, tmp_path: Path
) -> None:
    run(output, tmp_path / "packed")
    with pytest.raises(UsageError, match="another packed data set: pass --overwrite"):
        run(output, tmp_path / "packed", normalise=True)
    run(output, tmp_path / "packed", format="npz", overwrite=True)
    assert not list((tmp_path / "packed").rglob("*.parquet"))
    assert len(load_embeddings(tmp_path / "packed")) == ROWS


def test_an_unfinished_pack_of_other_records_starts_again(output: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    run(output, packed)
    (packed / "SHA256SUMS.txt").unlink()
    write_output(tmp_path / "more", [*PATHS, "one/more.dcm"], values(ROWS + 1, SIZE))
    assert run(tmp_path / "more", packed).kept == 0
    assert len(load_embeddings(packed)) == ROWS + 1


def test_the_sums_are_what_sha256sum_reads(output: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    run(output, packed)
    lines = (packed / "SHA256SUMS.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == sorted(
        files(packed).keys() - {"SHA256SUMS.txt"}
    )
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS.txt"], cwd=packed, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_float16_and_unit_length(output: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run(output, tmp_path / "half", dtype="float16", normalise=True)
    schema = pq.read_schema(next((tmp_path / "half").rglob("*.parquet")))
    assert str(schema.field("embedding").type.value_type) == "halffloat"
    assert schema.metadata[b"cxr_embed.normalised"] == b"true"
    assert json.loads(schema.metadata[b"cxr_embed.runs.fingerprint"])["model_sha256"] == "abc"
    loaded = load_embeddings(tmp_path / "half").values
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(loaded, axis=1), 1, atol=2e-3)
    with pytest.raises(UsageError, match="float32 only"):
        run(output, tmp_path / "x", dtype="float16", format="tfrecord")


def test_a_value_too_large_for_float16_is_never_written(tmp_path: Path) -> None:
    large = values(3, SIZE)
    large[1, 2] = 1e6
    write_output(tmp_path / "out", PATHS[:3], large)
    with pytest.raises(UsageError, match=f"{PATHS[1]} is too large for float16"):
        run(tmp_path / "out", tmp_path / "packed", dtype="float16")
    run(tmp_path / "out", tmp_path / "packed", dtype="float16", normalise=True)


@pytest.mark.parametrize("damage", ["torn", "not finite"])
def test_bad_records_are_never_packed(tmp_path: Path, damage: str) -> None:
    bad = values(3, SIZE)
    bad[1, 2] = np.nan if damage == "not finite" else 0
    write_output(tmp_path / "out", PATHS[:3], bad)
    record = tmp_path / f"out/{Path(PATHS[1]).stem}.tfrecord"
    if damage == "torn":
        record.write_bytes(record.read_bytes()[:-3])
    with pytest.raises(UsageError, match=f"{Path(PATHS[1]).stem}.*verify --repair"):
        run(tmp_path / "out", tmp_path / "packed")
    assert not list((tmp_path / "packed").rglob("embeddings*"))


def test_the_output_is_a_folder_of_its_own(output: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is inside --input_path"):
        run(output, output / "packed")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"contains other files, such as thesis\.tex"):
        run(output, tmp_path, overwrite=True)


def test_a_name_that_is_not_utf8_is_spelt_out_in_parquet(tmp_path: Path) -> None:
    name = b"radio\xff.dcm".decode("utf-8", "surrogateescape")
    write_output(tmp_path / "out", [name], values(1, SIZE))
    run(tmp_path / "out", tmp_path / "packed")
    assert load_embeddings(tmp_path / "packed").image_ids == ["radio\\xff.dcm"]
    assert load_embeddings(tmp_path / "out").to_pandas().image_id[0] == "radio\\xff.dcm"


def test_the_card_tells_what_the_manifests_do(output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    (copy / "_runs/20260101T000000Z-abcdef").mkdir(parents=True)
    (copy / "_runs/20260101T000000Z-abcdef/manifest.json").write_text(json.dumps({
        "model_path": "/home/somebody/secret/efficientnet-l2", "started": "2026-01-01T00:00:00",
        "finished": "2026-01-01T01:00:00", "versions": {"tensorflow": "2.21.0"},
        "counts": {"found": 2600, "skipped": {"not_frontal": 90}, "failed": {"truncated": 10}},
    }))  # fmt: skip
    run(copy, tmp_path / "packed")
    card = (tmp_path / "packed/README.md").read_text()
    for fact in ("2,500 embeddings of 6 floats", "`efficientnet-l2`", "abc", "cxr_foundation",
                 "90 not_frontal", "10 truncated", "tensorflow 2.21.0", "1K<n<10K"):  # fmt: skip
        assert fact in card
    assert "somebody" not in card
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    asked_for = readme.split("[start:citations] -->\n")[1].split("<!-- --8<-- [end:citations]")[0]
    assert asked_for.count("doi.org") == 4
    assert asked_for in card
