"""Packed data sets, read by the programs that people have. No network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from written import mimic_path, values, write_output

from cxr_embed.datasets.pack import Pack, pack

ROWS, SIZE = 50, 16
PATHS = [*(mimic_path(number) for number in range(ROWS - 1)), "elsewhere/plain.png"]


@pytest.fixture(scope="module", name="folder", params=["float32", "float16"])
def _folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    write_output(folder / "out", PATHS, values(ROWS, SIZE))
    wanted = Pack(str(folder / "out"), str(folder / request.param), dtype=request.param)
    pack(wanted, print, lambda total: lambda done: None)
    return folder / request.param


@pytest.fixture(name="expected")
def _expected(folder: Path) -> Iterator[np.ndarray]:
    order = np.argsort([Path(path).stem for path in PATHS])
    yield values(ROWS, SIZE)[order].astype(folder.name)


def test_pandas(folder: Path, expected: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(folder / "data")
    np.testing.assert_array_equal(np.stack(frame.embedding), expected)
    assert frame.subject_id[4] == 10_000_001
    assert frame.study_id.isna().sum() == 1


def test_polars(folder: Path, expected: np.ndarray) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(folder / "data/*.parquet")
    np.testing.assert_array_equal(frame["embedding"].to_numpy(), expected)
    assert frame.filter(polars.col("study_id") == 50_000_003).height == 2


def test_duckdb(folder: Path, expected: np.ndarray) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(
        f"select dicom_id, embedding, list_sum(embedding) from '{folder}/data/*.parquet' "
        "where subject_id = 10000002 order by dicom_id"
    ).fetchall()
    assert [row[0] for row in found] == [Path(path).stem for path in PATHS[8:12]]
    np.testing.assert_array_equal(np.array([row[1] for row in found], expected.dtype),
                                  expected[8:12])  # fmt: skip


def test_hugging_face_datasets_reads_the_card_too(
    folder: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path), split="train")
    assert found.num_rows == ROWS
    feature = found.features["embedding"]
    assert (feature.feature.dtype, feature.length) == (folder.name, SIZE)
    assert found.features["subject_id"].dtype == "int64"
    np.testing.assert_array_equal(found.with_format("numpy")["embedding"][:], expected)


def test_lancedb(folder: Path, expected: np.ndarray, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    import pyarrow.parquet as pq

    table = lancedb.connect(tmp_path).create_table("cxr", pq.read_table(folder / "data"))
    near = table.search(expected[7]).distance_type("cosine").limit(1).to_list()
    assert near[0]["dicom_id"] == Path(PATHS[7]).stem


def test_numpy_reads_the_npz(folder: Path, expected: np.ndarray, tmp_path: Path) -> None:
    wanted = Pack(str(folder), str(tmp_path / "npz"), format="npz", dtype=folder.name)
    pack(wanted, print, lambda total: lambda done: None)
    with np.load(tmp_path / "npz/data/embeddings.npz") as arrays:
        np.testing.assert_array_equal(arrays["embedding"], expected)
        assert arrays["dicom_id"][4] == Path(PATHS[4]).stem
        assert arrays["study_id"][4] == 50_000_002
        assert arrays["study_id"][-1] == -1
