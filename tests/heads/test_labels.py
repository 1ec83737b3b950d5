"""Labels CSVs, checked and never guessed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cxr_embed.errors import UsageError
from cxr_embed.heads.labels import LabelOptions, read_labels_csv

OPTIONS = LabelOptions(("OPACITY", "EFFUSION"))


def _write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return str(path)


def test_rows_as_they_are(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        'image_id,split,OPACITY,EFFUSION,patient_id\na.dcm,train,1,0,p1\n\n"b, c",tune,0.0,,p2\n',
    )
    table = read_labels_csv(path, OPTIONS)
    assert table.columns["image_id"] == ["a.dcm", "b, c"]
    assert table.lines == [2, 4]
    assert table.splits == ["train", "tune"]
    assert table.groups == ["p1", "p2"]
    np.testing.assert_array_equal(table.values, [[1, 0], [0, np.nan]])


def test_gzip_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress("\ufeffimage_id,split,OPACITY\na,train,1\n".encode()))
    assert len(read_labels_csv(str(path), LabelOptions(("OPACITY",)))) == 1


def test_uncertain_and_blank_as_told(tmp_path: Path) -> None:
    path = _write(tmp_path, "image_id,split,OPACITY,EFFUSION\na,train,-1,\n")
    found = {
        (uncertain, blank): read_labels_csv(
            path, LabelOptions(OPTIONS.heads, uncertain=uncertain, blank=blank)
        ).values.tolist()[0]
        for uncertain in ("missing", "negative", "positive")
        for blank in ("missing", "negative")
    }
    assert found["negative", "negative"] == [0, 0]
    assert found["positive", "negative"] == [1, 0]
    assert np.isnan(found["missing", "missing"]).all()
    assert found["positive", "missing"][0] == 1


def test_names_of_columns_may_differ_in_case_and_underscores(tmp_path: Path) -> None:
    path = _write(tmp_path, "dicom_id,split,Pleural Effusion\na,train,1\n")
    assert read_labels_csv(path, LabelOptions(("PLEURAL_EFFUSION",))).values.tolist() == [[1]]


def test_the_patient_column(tmp_path: Path) -> None:
    path = _write(tmp_path, "image_id,split,OPACITY,mrn,subject_id\na,train,1,x,y\n")
    assert read_labels_csv(path, LabelOptions(("OPACITY",))).groups == ["y"]
    assert read_labels_csv(path, LabelOptions(("OPACITY",), group_column="mrn")).groups == ["x"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("image_id,split,OPACITY,EFFUSION\n", "has a header and no rows"),
        ("image_id,split,OPACITY\na,train,1\n", "has no column EFFUSION; its columns are image_id"),
        ("image_id,OPACITY,EFFUSION\na,1,1\n", "has no column split"),
        ("image_id,split,OPACITY,EFFUSION\na,train,yes,1\n", "line 2, column OPACITY: 'yes' is no"),
        ("image_id,split,OPACITY,EFFUSION\na,train,0.5,1\n", "'0.5' is no label"),
        ("image_id,split,OPACITY,EFFUSION\na,train,nan,1\n", "'nan' is no label"),
        ("image_id,split,OPACITY,EFFUSION\na,train,1\n", "line 2 has 3 cells, its header has 4"),
        ("image_id,split,OPACITY,OPACITY\na,train,1,1\n", "has the column OPACITY twice"),
    ],
)
def test_what_is_no_labels_csv(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_labels_csv(_write(tmp_path, text), OPTIONS)
    assert complaint in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv does not exist"):
        read_labels_csv(str(tmp_path / "none.csv"), OPTIONS)
    with pytest.raises(UsageError, match="cannot be read"):
        read_labels_csv(str(tmp_path), OPTIONS)
    (tmp_path / "bad.csv").write_bytes(b"image_id,\xff\xfe\n")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read_labels_csv(str(tmp_path / "bad.csv"), OPTIONS)
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"image_id,split\n" * 99)[:-20])
    with pytest.raises(UsageError, match="cannot be read"):
        read_labels_csv(str(tmp_path / "torn.csv.gz"), OPTIONS)
