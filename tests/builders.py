"""Small DICOM files for tests, made element by element."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

GRADIENT = (np.arange(72 * 64).reshape(72, 64) * 8).astype(np.uint16)


def make_dataset(pixels: np.ndarray = GRADIENT, **elements: Any) -> FileDataset:
    """Returns a minimal radiograph; an element given as None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    defaults: dict[str, Any] = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "DX",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    merged = defaults | elements
    merged.setdefault("HighBit", (merged["BitsStored"] or 1) - 1)
    for keyword, value in merged.items():
        if value is not None and keyword != "PixelData":
            setattr(dataset, keyword, value)
    if elements.get("PixelData", True) is not None:
        data = elements.get("PixelData", np.ascontiguousarray(pixels).tobytes())
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return dataset


def jpeg2000(pixels: np.ndarray, bits: int) -> bytes:
    """Returns a lossless stream, which halves the image four times."""
    import imagecodecs

    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True, resolutions=5
        )
    )


def make_jpeg2000(
    pixels: np.ndarray, bits: int, stream: bytes | None = None, **elements: Any
) -> FileDataset:
    """Returns a radiograph in JPEG 2000 whose window cuts off both ends."""
    window = {"WindowCenter": float(pixels.mean()), "WindowWidth": float(np.ptp(pixels)) / 2}
    data = encapsulate([jpeg2000(pixels, bits) if stream is None else stream])
    made = make_dataset(pixels, BitsStored=bits, PixelData=data, **(window | elements))
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless
    made["PixelData"].is_undefined_length = True
    return made


def lut_item(first_mapped: int, entries: list[int], bits: int) -> Dataset:
    """Returns an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new(
        "LUTDescriptor",
        "US" if first_mapped >= 0 else "SS",
        [len(entries) % 65536, first_mapped, bits],
    )
    item.add_new("LUTData", "US", entries)
    return item


def as_bytes(dataset: Dataset) -> bytes:
    """Returns the dataset as the bytes of a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_dicom(pixels: np.ndarray = GRADIENT, **elements: Any) -> bytes:
    """Returns `make_dataset` as the bytes of a file."""
    return as_bytes(make_dataset(pixels, **elements))


def write_images(folder: Path, count: int) -> Path:
    """Writes different small radiographs, 000.dcm and so on; returns the folder."""
    for number in range(count):
        (folder / f"{number:03d}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, 31 * number)))
    return folder
