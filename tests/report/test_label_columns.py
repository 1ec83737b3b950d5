"""Labels meet embeddings by whatever names the image, and leftovers are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_embed.errors import UsageError
from cxr_embed.report.label_columns import LabelColumns, read_label_columns

IDS = ["a", "b", "c"]
PATHS = [f"files/p10/p10000032/s5041426{n}/{name}.dcm" for n, name in enumerate(IDS)]


def read(tmp_path: Path, text: str) -> LabelColumns:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_label_columns(str(path), IDS, PATHS)


@pytest.mark.parametrize("names", [("a", "c", "x"), ("a.jpg", "s50414262/c.png", "x.dcm"),
                                   (PATHS[0], PATHS[2], "gs://b/x.dcm")])  # fmt: skip
def test_by_any_name_of_an_image(tmp_path: Path, names: tuple[str, ...]) -> None:
    rows = "".join(f"9,{name},{value}\n" for name, value in zip(names, "123", strict=True))
    found = read(tmp_path, "year,image,finding\n" + rows)
    assert found.key == "image"
    assert found.columns == {"year": ["9", "", "9"], "finding": ["1", "", "2"]}
    assert (found.unmatched, found.unlabelled) == (1, 1)


def test_by_study(tmp_path: Path) -> None:
    found = read(tmp_path, "subject_id,study_id,Edema\n1,50414261,1.0\n1,s50414260,\n1,7,0\n")
    assert found.key == "study_id"
    assert found.columns["Edema"] == ["", "1.0", ""]
    assert (found.unmatched, found.unlabelled) == (1, 1)


@pytest.mark.parametrize("text", ["", "a,b\n", "x,y\n1,2\n", "\x00\xff"])
def test_what_fits_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"--labels_csv .*labels\.csv"):
        read(tmp_path, text)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_label_columns(str(tmp_path / "no.csv"), IDS, PATHS)
