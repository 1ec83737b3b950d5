"""Labels joined with embeddings: nothing vanishes silently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cxr_embed.errors import UsageError
from cxr_embed.heads import dataset
from cxr_embed.heads.labels import LabelTable
from cxr_embed.heads.mapped import MappedEmbeddings

NAN = float("nan")


def _embeddings(*image_ids: str) -> MappedEmbeddings:
    ids = [path.rpartition("/")[2].removesuffix(".dcm") for path in image_ids]
    return MappedEmbeddings("out", ids, list(image_ids), np.zeros((len(ids), 2), np.float32), None)


def _table(*rows: tuple[str, str, str, list[float]], heads: Any = ("A", "B")) -> LabelTable:
    keys, splits, groups, values = (list(column) for column in zip(*rows, strict=True))
    return LabelTable(
        "labels.csv", heads, {"image_id": keys}, list(range(2, len(rows) + 2)), splits, groups,
        np.array(values, np.float32).reshape(len(rows), -1),
    )  # fmt: skip


def test_a_join_follows_the_embeddings_and_keeps_a_tally() -> None:
    joined = dataset.join(
        _embeddings("x/c.dcm", "x/a.dcm", "x/d.dcm"),
        _table(("a", "train", "p1", [1, NAN]), ("zz", "train", "p9", [0, 0]),
               ("c.dcm", "tune", "p2", [0, 1])),
    )  # fmt: skip
    assert joined.rows.tolist() == [0, 1]
    assert joined.splits.tolist() == ["tune", "train"]
    np.testing.assert_array_equal(joined.labels, [[0, 1], [1, NAN]])
    assert joined.unmatched == [(3, "zz")]
    assert joined.unlabelled == 1
    assert joined.has_groups
    said = "\n".join(dataset.describe(joined, ("train",)))
    assert "train: 1 images; A 1+ 0-, B 0+ 0-" in said
    assert "labels of images that have no embedding: 1, such as zz" in said
    assert "embeddings without a label: 1" in said
    assert "not used: 1 labelled images in the split 'tune'" in said


def test_no_match_at_all_is_an_error_that_shows_both_forms() -> None:
    with pytest.raises(UsageError) as caught:
        dataset.join(_embeddings("x/a.dcm"), _table(("q/a.dcm", "train", "", [1, 1])))
    assert "none of the 1 labels in labels.csv" in str(caught.value)
    assert "image_id is q/a.dcm, an embedding's image_id is x/a.dcm" in str(caught.value)


def test_different_rows_of_an_image_are_refused() -> None:
    rows = _table(("a", "train", "p", [1, NAN]), ("a.dcm", "train", "p", [1, 0]))
    with pytest.raises(UsageError, match=r"labels\.csv lines 2 and 3 are different rows"):
        dataset.join(_embeddings("a.dcm"), rows)


def test_a_patient_in_two_splits() -> None:
    embeddings = _embeddings("a.dcm", "b.dcm")
    table = _table(("a", "train", "p7", [1, 1]), ("b", "test", "p7", [0, 0]))
    with pytest.raises(UsageError, match=r"1 patients .* such as p7 \(train and test\)"):
        dataset.join(embeddings, table)
    joined = dataset.join(embeddings, table, allow_shared_patients=True)
    assert len(set(joined.groups.tolist())) == 1


def test_images_of_unknown_patients_are_patients_of_their_own() -> None:
    joined = dataset.join(
        _embeddings("a.dcm", "b.dcm"), _table(("a", "train", "", [1, 1]), ("b", "test", "", [0, 0]))
    )
    assert len(set(joined.groups.tolist())) == 2
    assert any("--group_column" in line for line in dataset.describe(joined, ("train", "test")))


def test_splits_and_classes_are_checked() -> None:
    joined = dataset.join(
        _embeddings("a.dcm", "b.dcm"),
        _table(("a", "train", "", [1, NAN]), ("b", "tune", "", [NAN, NAN])),
    )
    with pytest.raises(UsageError, match=r"split 'valid'; there are 'train' \(1\), 'tune' \(1\)"):
        dataset.check_splits(joined, ["train", "valid"])
    with pytest.raises(UsageError, match="the 1 images of the split 'tune' have no label of A, B"):
        dataset.check_splits(joined, ["tune"])
    with pytest.raises(UsageError, match="'train' has 1 positive and 0 negative images of A"):
        dataset.check_both_classes(joined, "train")
