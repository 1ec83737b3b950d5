"""MIMIC's ids in paths."""

from __future__ import annotations

import pytest

from cxr_embed.embeddings.mimic_paths import mimic_ids

GOOD = "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.dcm"


@pytest.mark.parametrize("before", ["", "/data/", "gs://mimic-cxr-2.0.0.physionet.org/", "./"])
def test_subject_and_study(before: str) -> None:
    assert mimic_ids(before + GOOD) == (10000032, 50414267)


@pytest.mark.parametrize(
    "path",
    ["x.dcm", "p11/p10000032/s50414267/x.dcm", "p10/p10000032/x.dcm", "p10/p1000003/s50414267/x",
     "ap10/p10000032/s50414267/x.dcm", "p10/p10000032/s50414267/"],
)  # fmt: skip
def test_other_paths(path: str) -> None:
    assert mimic_ids(path) is None
