"""MIMIC's own files, as look-alikes with the published columns."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cxr_embed.errors import UsageError
from cxr_embed.heads.labels import LabelOptions
from cxr_embed.heads.mimic_labels import read_mimic

FILES = {
    "metadata": (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
        "PatientOrientationCodeSequence_CodeMeaning\n"
        "aa-1,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531,x,y,Erect\n"
        "aa-2,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.5,x,y,Erect\n"
        "bb-1,10000764,57375967,CHEST (PORTABLE AP),AP,2544,3056,21321015,62614.0,x,y,\n"
        "cc-1,10000898,50771383,CHEST (PORTABLE AP),AP,2544,3056,21880326,80000.0,x,y,\n"
    ),
    "split": (
        "dicom_id,study_id,subject_id,split\n"
        "aa-1,50414267,10000032,train\naa-2,50414267,10000032,train\n"
        "bb-1,57375967,10000764,validate\ncc-1,50771383,10000898,test\n"
    ),
    "chexpert": (
        "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,"
        "Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,"
        "Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
        "10000032,50414267,,,,,,,,,1.0,0.0,,,,\n"
        "10000764,57375967,,,1.0,,,,,,,-1.0,,-1.0,,\n"
    ),
}
HEADS = ("Pleural Effusion", "CONSOLIDATION")


def write_mimic(folder: Path, compressed: bool = True) -> str:
    for name, text in FILES.items():
        path = folder / f"mimic-cxr-2.0.0-{name}.csv"
        if compressed:
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
    return str(folder)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_study_s_labels_are_those_of_all_its_images(tmp_path: Path, compressed: bool) -> None:
    table = read_mimic(write_mimic(tmp_path, compressed), LabelOptions(HEADS))
    assert table.columns["dicom_id"] == ["aa-1", "aa-2", "bb-1", "cc-1"]
    assert table.splits == ["train", "train", "validate", "test"]
    assert table.groups == ["10000032", "10000032", "10000764", "10000898"]
    np.testing.assert_array_equal(
        table.values, [[0, np.nan], [0, np.nan], [np.nan, 1], [np.nan, np.nan]]
    )


def test_the_policies_of_blank_and_unsure(tmp_path: Path) -> None:
    options = LabelOptions(HEADS, uncertain="positive", blank="negative")
    table = read_mimic(write_mimic(tmp_path), options)
    # A study that the findings leave out has no label, whatever blank means.
    np.testing.assert_array_equal(table.values, [[0, 0], [0, 0], [1, 1], [np.nan, np.nan]])


def test_columns_for_subgroups(tmp_path: Path) -> None:
    options = LabelOptions(HEADS, extra_columns=("ViewPosition", "No Finding"))
    table = read_mimic(write_mimic(tmp_path), options)
    assert table.extras["ViewPosition"] == ["PA", "LATERAL", "AP", "AP"]
    assert table.extras["No Finding"] == ["1.0", "1.0", "", ""]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_mimic(tmp_path)
    with pytest.raises(UsageError, match="has no column Effusion; its columns are subject_id"):
        read_mimic(folder, LabelOptions(("Effusion",)))
    with pytest.raises(UsageError, match="has no column sex"):
        read_mimic(folder, LabelOptions(HEADS, extra_columns=("sex",)))
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(UsageError, match=r"has no mimic-cxr-2\.0\.0-split\.csv\.gz"):
        read_mimic(folder, LabelOptions(HEADS))


def test_a_study_with_two_rows_of_findings_is_refused(tmp_path: Path) -> None:
    write_mimic(tmp_path, compressed=False)
    path = tmp_path / "mimic-cxr-2.0.0-chexpert.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1].replace("1.0", "0.0")]))
    with pytest.raises(UsageError, match="lines 2 and 4 have the same study_id, 50414267"):
        read_mimic(str(tmp_path), LabelOptions(HEADS))
