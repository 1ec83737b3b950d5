"""Headers are counted by defined terms; nothing else of them comes out."""

from __future__ import annotations

import gzip
import io

import numpy as np
from builders import lut_item, make_dicom
from PIL import Image

from cxr_embed.report.header_statistics import ABSENT, UNDEFINED, VIEW, count, describe_header


def test_a_header() -> None:
    found = describe_header(make_dicom(WindowCenter=5, WindowWidth=9, BitsStored=12))
    assert found == {
        "File type": "DICOM", "Modality": "DX", VIEW: "PA",
        "Photometric Interpretation": "MONOCHROME2", "Bits Stored": "12",
        "Greyscale transformation": "window", "Compression": "Explicit VR Little Endian",
    }  # fmt: skip


def test_free_text_stays_inside() -> None:
    found = describe_header(
        make_dicom(ViewPosition="Geheim", Modality=None, PatientName="Geheim", Manufacturer="Acme")
    )
    assert found[VIEW] == UNDEFINED
    assert found["Modality"] == ABSENT
    assert not any("Geheim" in value or "Acme" in value for value in found.values())


def test_tables_and_compressed_files() -> None:
    data = make_dicom(VOILUTSequence=[lut_item(0, [1, 2], 12)])
    assert describe_header(gzip.compress(data))["Greyscale transformation"] == "VOI LUT"


def test_other_files() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "PNG")
    assert describe_header(buffer.getvalue()) == {"File type": "PNG"}
    assert describe_header(b"words") == {}
    assert describe_header(gzip.compress(b"x" * 99)[:20]) == {}
    assert describe_header(make_dicom()[:300])["File type"] == "DICOM"


def test_counts() -> None:
    found = count(
        [{"File type": "PNG"}, {"File type": "DICOM", VIEW: "AP"}, {"File type": "DICOM"}]
    )
    assert found == {"File type": [("DICOM", 2), ("PNG", 1)], VIEW: [("AP", 1)]}
