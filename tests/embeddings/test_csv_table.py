"""CSV tables as text, and as data frames."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cxr_embed.embeddings.csv_table import frame_texts, read_csv_table, typed_frame
from cxr_embed.errors import UsageError


def _csv(folder: Path, text: str) -> str:
    (folder / "labels.csv").write_bytes(text.encode())
    return str(folder / "labels.csv")


def test_cells_are_text_without_blanks_around_them(tmp_path: Path) -> None:
    table = read_csv_table(_csv(tmp_path, 'id, F \n007, 1.0\n,,\n"b, c",\n'.replace(",,", ",")), "")
    assert table.columns == {"id": ["007", "b, c"], "F": ["1.0", ""]}
    assert table.lines == [2, 4]


def test_gzip_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gzip.compress("\ufeffid\na\n".encode()))
    assert read_csv_table(str(tmp_path / "x"), "").columns == {"id": ["a"]}


def test_a_column_is_found_where_only_case_or_underscores_differ(tmp_path: Path) -> None:
    table = read_csv_table(_csv(tmp_path, "Pleural Effusion\n1\n"), "")
    assert table.column("PLEURAL_EFFUSION") == ["1"]
    with pytest.raises(UsageError, match="has no column Edema; its columns are Pleural Effusion"):
        table.column("Edema")


def test_a_data_frame_has_types_and_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    frame = typed_frame(read_csv_table(_csv(tmp_path, "id,F,G,H\n007,1,,x\n12,0,0.5,\n"), ""))
    assert frame["id"].tolist() == ["007", "12"]
    assert [frame[name].dtype.kind for name in "FG"] == ["i", "f"]
    assert frame["H"].isna().tolist() == [False, True]


def test_a_data_frame_s_cells_as_text(tmp_path: Path) -> None:
    import pandas as pd

    assert frame_texts(pd.DataFrame({"a": [1.0, None], "b": ["x", None]})) == {
        "a": ["1.0", ""],
        "b": ["x", ""],
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n1\n", "line 2 has 1 cells, its header has 2"),
        ("a,a\n1,1\n", "has the column a twice"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = _csv(tmp_path, text) if text is not None else str(tmp_path / "labels.csv")
    with pytest.raises(UsageError) as caught:
        read_csv_table(path, "--labels_csv")
    assert complaint in str(caught.value)
    assert "labels.csv" in str(caught.value)
