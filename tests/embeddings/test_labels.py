"""Which label belongs to which image."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_embed.embeddings.labels import key_column, match_groups, match_images, read_table
from cxr_embed.errors import UsageError

IMAGES = ["gs://bucket/files/p10/a.dcm", "gs://bucket/files/p11/b.dcm", "gs://bucket/files/c.png"]
IDS = ["a", "b", "c"]


@pytest.mark.parametrize(
    "keys",
    [
        ["gs://bucket/files/p11/b.dcm", "gs://bucket/files/c.png", "gs://bucket/files/p10/a.dcm"],
        ["p11/b.dcm", "c.png", "files/p10/a.dcm"],
        ["/elsewhere/p11/b.jpg", "c", "a.dcm.gz"],
        ["b.tfrecord", "c.tfrecord", "p10/a.tfrecord"],
        ["b", "c", "a"],
    ],
    ids=["uri", "relative", "other extension", "record", "dicom id"],
)
def test_every_kind_of_key(keys: list[str]) -> None:
    match = match_images(keys, IDS, IMAGES)
    assert match.label_of_row.tolist() == [2, 0, 1]
    assert match.unmatched == []


def test_labels_of_nothing_and_images_without_label_are_told() -> None:
    match = match_images(["b", "x", "y"], IDS, IMAGES)
    assert match.label_of_row.tolist() == [-1, 0, -1]
    assert match.unmatched == [1, 2]


def test_folders_decide_between_images_of_one_name() -> None:
    images = ["in/1/image.dcm", "in/2/image.dcm", "in/3/image.dcm"]
    match = match_images(["2/image.dcm", "/data/in/3/image.dcm", "9/image.dcm"],
                         ["image"] * 3, images)  # fmt: skip
    assert match.label_of_row.tolist() == [-1, 0, 1]
    assert match.unmatched == [2]


def test_a_label_that_fits_several_images_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fits 2 images, such as 1/x.dcm and 2/x.dcm"):
        match_images(["x"], ["x", "x"], ["1/x.dcm", "2/x.dcm"])


def test_several_labels_for_one_image_are_refused() -> None:
    with pytest.raises(UsageError, match="several rows for p10/a"):
        match_images(["a", "p10/a"], IDS, IMAGES)


def test_a_study_labels_all_its_images() -> None:
    studies = (50414267, 50414267, 53189527)
    images = [f"files/p10/p10000032/s{study}/{n}.dcm" for n, study in enumerate(studies)]
    match = match_groups(["53189527.0", "s50414267", "nan"], "study_id", images)
    assert match.label_of_row.tolist() == [1, 1, 0]
    assert match.unmatched == [2]
    assert match_groups(["p10000032"], "subject_id", images).label_of_row.tolist() == [0, 0, 0]
    with pytest.raises(UsageError, match="several rows for study_id 50414267"):
        match_groups(["s50414267", "50414267"], "study_id", images)


def test_the_column_that_names_the_most_images_is_the_key(tmp_path: Path) -> None:
    table = read_table(_csv(tmp_path, "c,path,label\na,files/p10/a.jpg,1\n,p11/b.jpg,0\n"))
    assert key_column(table, IDS) == "path"
    with pytest.raises(UsageError, match=r"no column .* names an image by its URI"):
        key_column(table, ["z"])


def test_labels_that_look_like_images_are_not_the_key() -> None:
    import pandas as pd

    frame = pd.DataFrame({"effusion": [0, 1, 2], "file": ["0.jpg", "5.dcm", "1.dcm"]})
    assert key_column(frame, ["0", "1", "2"]) == "file"
    assert key_column(frame[["effusion"]], ["0", "1", "2"]) == "effusion"


def test_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    table = read_table(_csv(tmp_path, "id,label\n007,1\n12,0\n"))
    assert table["id"].tolist() == ["007", "12"]
    assert table["label"].tolist() == [1, 0]


def test_the_index_of_a_data_frame_may_be_the_key() -> None:
    import pandas as pd

    frame = pd.DataFrame({"label": [1, 0]}, index=pd.Index(["b", "a"], name="dicom_id"))
    assert key_column(read_table(frame), IDS) == "dicom_id"


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("", "not a CSV")])
def test_unusable_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_table(path)


def _csv(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"
