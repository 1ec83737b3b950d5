"""Labels and patients in a table whose columns nobody named."""

from __future__ import annotations

import numpy as np

from cxr_embed.heads.found_labels import find_labels, find_patients


def test_columns_of_0_and_1() -> None:
    found = find_labels(
        {"EFFUSION": ["1", "0", "", "-1", " 1.0"], "only": ["1", "1", "", "1", "1"]}
    )
    assert list(found) == ["EFFUSION"]
    np.testing.assert_array_equal(found["EFFUSION"], [1, 0, np.nan, np.nan, 1])


def test_columns_of_words() -> None:
    found = find_labels({"finding": ["none", "nodule", "", "mass", "none"], "sex": list("MFFMM")})
    assert list(found) == ["finding: mass", "finding: nodule", "finding: none", "sex: F"]
    np.testing.assert_array_equal(found["finding: none"], [1, 0, np.nan, 0, 1])


def test_what_is_no_label() -> None:
    columns = {
        "split": ["train", "test"] * 20,
        "patient_id": ["0", "1"] * 20,
        "subject_id": ["0", "1"] * 20,
        "age": [str(20 + n % 3) for n in range(40)],
        "name": [f"image {n}" for n in range(40)],
        "empty": [""] * 40,
    }
    assert find_labels(columns) == {}


def test_patients_are_a_column_or_mimics_folders_or_unknown() -> None:
    images = ["files/p10/p10000032/s50414267/a.dcm", "files/p10/p10000032/s50414268/b.dcm", "c.dcm"]
    groups, known = find_patients({"patient_id": ["x", "y", "x"]}, images)
    assert known and groups[0] == groups[2] != groups[1]
    groups, known = find_patients({}, images)
    assert known and groups[0] == groups[1] != groups[2]
    groups, known = find_patients({"subject_id": ["", "", ""]}, images)
    assert not known and len(set(groups.tolist())) == 3
