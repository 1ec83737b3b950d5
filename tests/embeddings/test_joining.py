"""Labels join embeddings by one set of rules, whichever verb reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.joining import ImageIndex, Source, join_labels
from cxr_embed.errors import UsageError
from cxr_embed.heads import dataset, predictions
from cxr_embed.heads.labels import LabelOptions, read_labels_csv
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.report.label_columns import read_label_columns

IMAGE = "gs://bucket/files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm"


def _index(*image_ids: str) -> ImageIndex:
    from cxr_embed.elements import dicom_id_of

    return ImageIndex([dicom_id_of(path) for path in image_ids], image_ids)


@pytest.mark.parametrize(
    "key",
    [
        IMAGE,
        "files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm",
        "./s50414267/02aa804e-bde0afdd.dcm",
        "02aa804e-bde0afdd.dcm",
        "02aa804e-bde0afdd",
        "02aa804e-bde0afdd.tfrecord",
        "p10000032/s50414267/02aa804e-bde0afdd",
        "02aa804e-bde0afdd.png",
        "/mnt/bucket/files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm",
    ],
)
def test_every_form_of_a_name(key: str) -> None:
    index = _index("gs://bucket/files/p10/p10000032/s50414267/other.dcm", IMAGE)
    assert index.find(key) == 1


@pytest.mark.parametrize(
    "key",
    [
        "02aa804e",
        "2aa804e-bde0afdd",
        "s1/02aa804e-bde0afdd.dcm",
        "gs://other/files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm",
        "xs50414267/02aa804e-bde0afdd.dcm",
        "S50414267/02AA804E-BDE0AFDD.dcm",
    ],
)
def test_another_image_is_not_found(key: str) -> None:
    assert _index(IMAGE).find(key) is None


def test_an_embedding_of_a_relative_path_is_found_by_the_full_one() -> None:
    assert _index("../data/a/x.dcm").find("/home/me/data/a/x.dcm") == 0


def test_a_uid_is_a_whole_name() -> None:
    index = _index("in/1.2.840.113619.4", "in/1.2.840.113619.4.1.dcm")
    assert index.find("1.2.840.113619.4") == 0
    assert index.find("1.2.840.113619.4.1") == 1
    assert index.find("1.2.840.113619") is None


def test_folders_tell_images_of_one_name_apart() -> None:
    index = _index("a/x.dcm", "b/x.dcm", "c/a/x.dcm")
    assert index.find("b/x.dcm") == 1
    assert index.find("c/a/x.dcm") == 2
    assert index.find("a/x.dcm") == 0  # the whole path, though another ends in it


def test_extensions_tell_images_of_one_name_apart() -> None:
    index = _index("a/x.dcm", "a/x.png")
    assert index.find("x.PNG") == 1
    assert index.find("x.dcm") == 0
    with pytest.raises(UsageError, match="names several images"):
        index.find("x")


def test_a_name_of_several_is_an_error_that_names_them() -> None:
    index = _index("a/x.dcm", "b/x.dcm", "c/x.dcm")
    with pytest.raises(UsageError) as caught:
        index.find("x")
    assert "a/x.dcm and b/x.dcm (and 1 more)" in str(caught.value)


def test_the_record_s_name_counts_as_well() -> None:
    """A packed file may have been renamed: its ids still say what they are."""
    assert ImageIndex(["abc"], ["images/1.dcm"]).find("abc") == 0


IMAGES = ["gs://bucket/files/p10/a.dcm", "gs://bucket/files/p11/b.dcm", "gs://bucket/files/c.png"]
IDS = ["a", "b", "c"]
STUDIES = [
    f"files/p10/p10000032/s5041426{n}/{name}.dcm" for n, name in ((7, "a"), (7, "b"), (8, "c"))
]


@pytest.mark.parametrize(
    "keys",
    [
        ["gs://bucket/files/p11/b.dcm", "gs://bucket/files/c.png", "gs://bucket/files/p10/a.dcm"],
        ["p11/b.dcm", "c.png", "files/p10/a.dcm"],
        ["b.tfrecord", "c.tfrecord", "p10/a.tfrecord"],
        ["b", "c", "a.dcm.gz"],
        [" b", "c ", "a"],
    ],
    ids=["uri", "relative", "record", "other extension", "dicom id"],
)
def test_rows_join_by_every_form_of_a_key(keys: list[str]) -> None:
    joined = join_labels({"image_id": keys}, IDS, IMAGES)
    assert joined.label_of_row.tolist() == [2, 0, 1]
    assert (joined.unmatched, joined.unlabelled) == ([], [])


def test_what_has_no_partner_is_listed() -> None:
    joined = join_labels({"image_id": ["b", "x", "other/a.dcm"]}, IDS, IMAGES)
    assert joined.label_of_row.tolist() == [-1, 0, -1]
    assert (joined.unmatched, joined.unlabelled) == ([1, 2], [0, 2])


def test_a_study_labels_all_its_images() -> None:
    columns = {"subject_id": ["1", "1", "1"], "study_id": ["50414268.0", "s50414267", "7"]}
    joined = join_labels(columns, IDS, STUDIES)
    assert joined.on == "study_id"
    assert joined.label_of_row.tolist() == [1, 1, 0]
    assert joined.unmatched == [2]
    subjects = join_labels({"subject_id": ["p10000032"]}, IDS, STUDIES)
    assert subjects.label_of_row.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("columns", "images"),
    [
        ({"image_id": ["a", "p10/a.dcm"], "x": ["1", "1"]}, IMAGES),
        ({"image_id": ["a", "a"], "x": ["1", "0"]}, IMAGES),
        ({"study_id": ["50414267", "50414267"], "x": ["1", "0"]}, STUDIES),
    ],
    ids=["two forms of one name", "one name", "study"],
)
def test_different_rows_with_the_same_key_are_refused(
    columns: dict[str, list[str]], images: list[str]
) -> None:
    with pytest.raises(UsageError, match=r"labels\.csv lines 2 and 5 are different rows"):
        join_labels(columns, IDS, images, source=Source("labels.csv", [2, 5]))


def test_equal_rows_count_as_one() -> None:
    joined = join_labels({"image_id": ["a", "a"], "x": ["1", "1"]}, IDS, IMAGES)
    assert joined.label_of_row.tolist() == [0, -1, -1]
    assert joined.unmatched == []


def test_a_row_without_a_key_is_refused() -> None:
    with pytest.raises(UsageError, match="the labels row 1 names no image: image_id is empty"):
        join_labels({"image_id": ["a", " "]}, IDS, IMAGES)


@pytest.mark.parametrize(
    ("columns", "on"),
    [
        ({"dicom_id": ["a", "x"], "file": ["a.dcm", "b.dcm"]}, "dicom_id"),
        ({"dicom_id": ["x", "y"], "file": ["a.dcm", "b.dcm"]}, "file"),
        ({"c": ["a", "x"], "path": ["files/p10/a.jpg", "p11/b.jpg"]}, "path"),
        ({"study_id": ["50414267", "7"], "file": ["a.dcm", "x"]}, "file"),
    ],
    ids=["by its name", "named but of other images", "most images", "an image before a study"],
)
def test_the_key_is_the_column_that_names_images(columns: dict[str, list[str]], on: str) -> None:
    assert join_labels(columns, IDS, IMAGES).on == on


def test_labels_that_look_like_images_are_not_the_key() -> None:
    columns = {"effusion": ["0", "1", "2"], "file": ["0.jpg", "5.dcm", "1.dcm"]}
    images = ["0.dcm", "1.dcm", "2.dcm"]
    assert join_labels(columns, ["0", "1", "2"], images).on == "file"
    del columns["file"]
    assert join_labels(columns, ["0", "1", "2"], images).on == "effusion"


def test_a_table_of_nothing_that_is_here_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no column of the labels \(x\) names an image"):
        join_labels({"x": ["1"]}, IDS, IMAGES)
    with pytest.raises(UsageError, match=r"none of the 1 labels .* image_id is z, an embedding's"):
        join_labels({"image_id": ["z"]}, IDS, IMAGES)
    with pytest.raises(UsageError, match="has no column y; its columns are x"):
        join_labels({"x": ["a"]}, IDS, IMAGES, on="y")


def _joined_by_all(path: Path, ids: list[str], images: list[str]) -> dict[str, object]:
    """What each reader makes of a CSV: the values of F and what is left over, or why not."""
    values = np.zeros((len(ids), 2), np.float32)

    def by_join() -> object:
        joined = Embeddings(ids, images, values).join(path)
        cells = dict(zip(joined.embeddings.image_ids, joined.labels.F.tolist(), strict=True))
        return cells, len(joined.unmatched_labels), len(joined.unlabelled)

    def by_report() -> object:
        found = read_label_columns(str(path), ids, images)
        cells = zip(images, found.columns["F"], strict=True)
        return {i: int(cell) for i, cell in cells if cell}, found.unmatched, found.unlabelled

    def by_train() -> object:
        table = read_labels_csv(str(path), LabelOptions(("F",), needs_split=False))
        found = dataset.join(MappedEmbeddings("out", ids, images, values, None), table)
        cells = {images[row]: int(f) for row, f in zip(found.rows, found.labels[:, 0], strict=True)}
        return cells, len(found.unmatched), found.unlabelled

    def by_evaluate() -> object:
        table = read_labels_csv(str(path), LabelOptions(("F",), needs_split=False))
        made = predictions.Predictions(
            ("F",), ids, images, np.full((len(ids), 1), 0.5), None,
            np.full(len(ids), "", dtype=object), np.arange(len(ids)),
        )  # fmt: skip
        found = predictions.attach(made, table)
        assert made.labels is not None
        cells = zip(images, made.labels[:, 0].tolist(), strict=True)
        return (
            {i: int(f) for i, f in cells if not np.isnan(f)},
            len(found.unmatched),
            found.unlabelled,
        )

    results: dict[str, object] = {}
    for reader in (by_join, by_report, by_train, by_evaluate):
        try:
            results[reader.__name__] = reader()
        except UsageError as error:
            results[reader.__name__] = str(error).partition(str(path))[2]
    return results


@pytest.mark.parametrize(
    "text",
    [
        "image_id,F\na,1\nc.dcm,0\nlost,1\n",
        "image_id,F\nfiles/p10/p10000032/s50414267/b.dcm,1\nother/a.dcm,0\n",
        "F,where\n0,a.tfrecord\n1,/mnt/files/p10/p10000032/s50414268/c.png\n",
        "study_id,F\ns50414267,1\n50000000,0\n",
        "subject_id,F\n10000032,1\n",
        "dicom_id,F\na,1\na.dcm,0\n",
        "dicom_id,F\na,1\n\n,0\n",
        "F,x\n1,q\n",
        "image_id,F\nz,1\n",
        "image_id,F\na,1,2\n",
        "",
    ],
)
def test_one_csv_joins_the_same_way_everywhere(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    results = _joined_by_all(path, IDS, STUDIES)
    assert len({json.dumps(result) for result in results.values()}) == 1, results
