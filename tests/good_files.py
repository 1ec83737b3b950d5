"""Small good files of every kind that is read, to damage or to cut short."""

from __future__ import annotations

import gzip
import io

import numpy as np
from builders import as_bytes, lut_item, make_dataset, make_dicom
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

PIXELS = (np.indices((40, 36)).sum(axis=0) * 23 % 4096).astype(np.uint16)


def seeds() -> dict[str, bytes]:
    """Returns small good files, one of each kind that is read."""
    rich = {
        "BitsStored": 12, "WindowCenter": [2000.5, 900], "WindowWidth": [3000, 700],
        "RescaleSlope": "-1.5", "RescaleIntercept": "4095", "PatientName": "Nobody^At All",
        "VOILUTSequence": [lut_item(0, list(range(0, 4096, 3)), 12)],
        "PixelPaddingValue": 0, "PresentationLUTShape": "INVERSE",
    }  # fmt: skip
    found = {"explicit": make_dicom(PIXELS, **rich)}
    for name, syntax in (
        ("implicit", ImplicitVRLittleEndian),
        ("big_endian", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        dataset = make_dataset(PIXELS, **rich)
        dataset.file_meta.TransferSyntaxUID = syntax
        if name == "big_endian":
            dataset.PixelData = PIXELS.byteswap().tobytes()
            dataset.set_original_encoding(False, False)
        found[name] = as_bytes(dataset)
    for name, syntax, plugin in (
        ("rle", RLELossless, "pydicom"),
        ("jpegls", JPEGLSLossless, "pyjpegls"),
        ("jpeg2000", JPEG2000Lossless, "pylibjpeg"),
    ):
        dataset = make_dataset(PIXELS, BitsStored=12)
        dataset.compress(syntax, encoding_plugin=plugin)
        found[name] = as_bytes(dataset)
    for name in ("png", "jpeg"):
        buffer = io.BytesIO()
        Image.fromarray(PIXELS if name == "png" else (PIXELS >> 4).astype(np.uint8)).save(
            buffer, name.upper()
        )
        found[name] = buffer.getvalue()
    found["gzip"] = gzip.compress(found["explicit"], mtime=0)
    return found
