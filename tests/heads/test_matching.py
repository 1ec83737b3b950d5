"""Every way to name an image finds its embedding, and only that one."""

from __future__ import annotations

import pytest

from cxr_embed.errors import UsageError
from cxr_embed.heads.matching import ImageIndex

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
    with pytest.raises(UsageError, match="fits several"):
        index.find("x")


def test_a_name_of_several_is_an_error_that_names_them() -> None:
    index = _index("a/x.dcm", "b/x.dcm", "c/x.dcm")
    with pytest.raises(UsageError) as caught:
        index.find("x")
    assert "a/x.dcm and b/x.dcm (and 1 more)" in str(caught.value)


def test_the_record_s_name_counts_as_well() -> None:
    """A packed file may have been renamed: its ids still say what they are."""
    assert ImageIndex(["abc"], ["images/1.dcm"]).find("abc") == 0
