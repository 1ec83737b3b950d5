"""Lays out the demonstration's input: real radiographs in several encodings, and broken files.

The radiographs are RG1 (a chest, PA) and RG3 of the NEMA sample set, as PyPI's pydicom-data ships
them; the other copies are derived from these here.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import data_store  # type: ignore[import-untyped]
import numpy as np
import pydicom
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

_DATA = Path(data_store.__path__[0]) / "data"

_AS_SHIPPED = {
    "rg1_chest_pa": "RG1_UNCR.dcm",
    "rg1_chest_pa_jpeg2000": "RG1_J2KR.dcm",
    "rg3": "RG3_UNCR.dcm",
    "rg3_jpeg2000_lossy": "RG3_J2KI.dcm",
}


def main(folder: Path) -> None:
    """Writes all files to `folder`."""
    good, broken = folder / "good", folder / "broken"
    good.mkdir(parents=True, exist_ok=True)
    broken.mkdir(parents=True, exist_ok=True)
    for name, source in _AS_SHIPPED.items():
        shutil.copy(_DATA / source, good / f"{name}.dcm")
    chest = _DATA / _AS_SHIPPED["rg1_chest_pa"]
    _inverted_copy(chest).save_as(good / "rg1_chest_pa_monochrome2.dcm")
    for name, syntax, plugin in (
        ("jpegls", JPEGLSLossless, "pyjpegls"),
        ("rle", RLELossless, "pydicom"),
    ):
        copy = pydicom.dcmread(chest)
        copy.compress(syntax, encoding_plugin=plugin)
        copy.save_as(good / f"rg1_chest_pa_{name}.dcm")
    (broken / "cut_short.dcm").write_bytes(chest.read_bytes()[:1_000_000])
    without = pydicom.dcmread(chest)
    del without.PixelData
    without.save_as(broken / "no_pixels.dcm")
    shutil.copy(_DATA / "SC_rgb.dcm", broken / "colour.dcm")
    print(f"{len(list(good.iterdir()))} radiographs and {len(list(broken.iterdir()))} broken files")


def _inverted_copy(path: Path) -> pydicom.Dataset:
    """The same radiograph with the other polarity in the pixels and in the header."""
    copy = pydicom.dcmread(path)
    highest = (1 << copy.BitsStored) - 1
    copy.PixelData = (highest - copy.pixel_array).astype(np.uint16).tobytes()
    is_first = copy.PhotometricInterpretation == "MONOCHROME1"
    copy.PhotometricInterpretation = "MONOCHROME2" if is_first else "MONOCHROME1"
    copy.SOPInstanceUID = generate_uid(entropy_srcs=["cxr-embed", "inverted"])
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    if "WindowCenter" in copy:
        copy.WindowCenter = highest - float(np.atleast_1d(copy.WindowCenter)[0])
        copy.WindowWidth = float(np.atleast_1d(copy.WindowWidth)[0])
    return copy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
