"""The `dicom` rendering against DCMTK's dcm2pnm, which hospitals have trusted for decades.

Where DCMTK and the standard disagree the standard wins: such cases give DCMTK another file or
other options that have the same effect in terms it supports, and their comment gives the reason.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import make_sample_dicoms
import numpy as np
import pytest
from builders import as_bytes, lut_item, make_dicom
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from cxr_embed import read_radiograph
from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoders

pytestmark = pytest.mark.skipif(
    not shutil.which("dcmj2pnm"), reason="DCMTK is not installed (apt-get install dcmtk)"
)

# Of the full range, as promised.
MEAN, MAXIMUM = 0.002, 0.01

# dcmj2pnm reads all native syntaxes, RLE and JPEG; dcml2pnm JPEG-LS; none JPEG 2000 or HTJ2K.
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
UNREAD_BY_DCMTK = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.20")


def dcmtk_pixels(data: bytes, options: Sequence[str], folder: Path) -> np.ndarray:
    """Returns what DCMTK makes of a file, uint16, without overlays."""
    source, target = folder / "image.dcm", folder / "image.png"
    dataset = dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    source.write_bytes(uncompressed(data) if syntax.startswith(UNREAD_BY_DCMTK) else data)
    program = "dcml2pnm" if syntax in JPEG_LS else "dcmj2pnm"
    command = [program, "--quiet", "-O", "+on2", "-il", *(options or voi_options(dataset))]
    subprocess.run([*command, source, target], check=True)
    pixels: np.ndarray = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    return pixels


def voi_options(dataset: Dataset) -> list[str]:
    """Returns how to ask DCMTK for what C.11.2 prescribes; its own default is none of it."""
    if dataset.get("VOILUTSequence"):
        return ["+Wl", "1"]
    return ["+Wi", "1"] if dataset.get("WindowWidth") else ["+Wm"]


def uncompressed(data: bytes) -> bytes:
    dataset = dcmread(io.BytesIO(data))
    pixels = decoders.decode(dataset, str(dataset.file_meta.TransferSyntaxUID))
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].is_undefined_length = False
    return as_bytes(dataset)


def assert_agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    difference = np.abs(ours.astype(np.float64) - theirs) / 65535
    assert difference.mean() <= MEAN
    assert difference.max() <= MAXIMUM


def ramp(bits: int, signed: bool = False) -> np.ndarray:
    """Returns an image of 80 x 64 values that spans all that `bits` can hold."""
    low = -(1 << bits - 1) if signed else 0
    values = np.linspace(low, low + (1 << bits) - 1, 80 * 64)
    dtype = f"{'int' if signed else 'uint'}{8 if bits <= 8 else 16}"
    return values.astype(dtype).reshape(80, 64)


def curve(count: int, bits: int) -> list[int]:
    """Returns the entries of a table that bends upwards."""
    return [int(v) for v in np.linspace(0, 1, count) ** 1.7 * ((1 << bits) - 1)]


def table(first: int, entries: list[int], bits: int, given: tuple[Any, ...] = ()) -> list[Dataset]:
    """Returns a LUT sequence; `given` is a descriptor's VR and values where it is to be odd."""
    item = lut_item(first, entries, bits)
    if given:
        item.add_new("LUTDescriptor", given[0], list(given[1:]))
    if len(entries) > 30_000:  # too long for US
        item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return [item]


def packed(entries: list[int], vr: str) -> list[Dataset]:
    """Returns a LUT sequence of 8-bit entries, two in a word."""
    item = lut_item(0, entries, 8)
    data = bytes(entries) + b"\0" * (len(entries) % 2)
    item.add_new("LUTData", vr, data if vr == "OW" else np.frombuffer(data, "<u2").tolist())
    return [item]


@dataclass
class Case:
    """An image, and where DCMTK has to be helped, what it gets instead."""

    name: str
    pixels: np.ndarray
    elements: dict[str, Any] = field(default_factory=dict)
    for_dcmtk: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


R12, S12 = ramp(12), ramp(12, signed=True)
WINDOW = {"WindowCenter": 1900, "WindowWidth": 1500}
TWELVE = {"BitsStored": 12}
MONO1 = {"PhotometricInterpretation": "MONOCHROME1"}
CONTRADICTION = ("MONOCHROME1", "IDENTITY")
VOI_LUT = {"VOILUTSequence": table(0, curve(4096, 12), 12)}

BIT_DEPTHS = [
    Case(f"{bits} bits, no VOI", ramp(bits, signed=True), {"BitsStored": bits})
    for bits in (6, 8, 10, 12, 14, 16)
] + [
    Case(
        f"{bits} bits, window", ramp(bits),
        {"BitsStored": bits, "WindowCenter": 0.45 * 2**bits, "WindowWidth": 0.6 * 2**bits},
    )
    for bits in range(8, 17)
]  # fmt: skip

WINDOWS = [
    Case("LINEAR", R12, TWELVE | WINDOW),
    Case("LINEAR, given", R12, TWELVE | WINDOW | {"VOILUTFunction": "LINEAR"}),
    Case("LINEAR, fractions", R12, TWELVE | {"WindowCenter": "2000.4", "WindowWidth": "333.3"}),
    Case("LINEAR, width 2", R12, TWELVE | {"WindowCenter": 2000, "WindowWidth": 2}),
    Case("LINEAR, width 1", R12, TWELVE | {"WindowCenter": 2000, "WindowWidth": 1}),
    Case("LINEAR, wider than the image", R12, TWELVE | {"WindowCenter": 2000, "WindowWidth": 9e4}),
    Case("two windows", R12, TWELVE | {"WindowCenter": [900, 1], "WindowWidth": [700, 2]}),
    Case("SIGMOID", R12, TWELVE | WINDOW | {"VOILUTFunction": "SIGMOID"}),
    # C.11.2.1.3.2; DCMTK 3.6.7 does not know the term and takes LINEAR. LINEAR of centre + 0.5 and
    # width + 1 is the same line.
    Case(
        "LINEAR_EXACT", R12, TWELVE | WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
        options=("+Ww", "1900.5", "1501", "+Wfl"),
    ),
    Case(
        "LINEAR_EXACT, width below 1", R12,
        TWELVE | {"WindowCenter": 2000, "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"},
        options=("+Ww", "2000.5", "1.5", "+Wfl"),
    ),
]  # fmt: skip

RESCALES = [
    Case("slope", R12, TWELVE | WINDOW | {"RescaleSlope": 2.5, "RescaleIntercept": -1024}),
    Case("negative slope", R12, TWELVE | WINDOW | {"RescaleSlope": -1, "RescaleIntercept": 4095}),
    Case("negative slope, no VOI", R12, TWELVE | {"RescaleSlope": -1.5, "RescaleIntercept": 95}),
    Case(
        "signed, SIGMOID", S12,
        TWELVE | {"WindowCenter": 12, "WindowWidth": 800, "VOILUTFunction": "SIGMOID",
                  "RescaleSlope": 0.5, "RescaleIntercept": 3},
    ),
    # C.11.1.1.2: output = m x stored + b. DCMTK rounds it to integers, which leaves five levels of
    # this one; a thousand times the slope and the window have the same effect.
    Case(
        "slope 0.001", R12,
        TWELVE | {"RescaleSlope": 0.001, "RescaleIntercept": 0,
                  "WindowCenter": 2, "WindowWidth": 3, "VOILUTFunction": "LINEAR_EXACT"},
        {"RescaleSlope": 1},
        options=("+Ww", "2000.5", "3001", "+Wfl"),
    ),
]  # fmt: skip

POLARITY = [
    Case(
        f"{photometric}, shape {shape or 'absent'}, {name}", R12,
        TWELVE | voi | {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape},
        # C.7.6.3.1.2: the minimum of MONOCHROME1 is shown white, and C.7.6.1 allows IDENTITY with
        # MONOCHROME2 only. DCMTK lets IDENTITY win; devices that write it with MONOCHROME1 are
        # known, and mean the latter.
        {"PresentationLUTShape": None} if (photometric, shape) == CONTRADICTION else {},
    )
    for photometric in ("MONOCHROME1", "MONOCHROME2")
    for shape in (None, "IDENTITY", "INVERSE")
    for name, voi in (("no VOI", {}), ("window", WINDOW), ("VOI LUT", VOI_LUT))
]  # fmt: skip

C12, C16 = curve(4096, 12), curve(4096, 16)
RESCALED = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def voi(name: str, *sequences: list[Dataset], pixels: np.ndarray = R12, **elements: Any) -> Case:
    """Returns a case of a VOI LUT; a second sequence is what DCMTK gets instead."""
    elements = {"BitsStored": 12, "VOILUTSequence": sequences[0]} | elements
    return Case(
        f"VOI LUT, {name}", pixels, elements,
        {"VOILUTSequence": sequences[1]} if sequences[1:] else {},
    )  # fmt: skip


def modality(name: str, sequence: list[Dataset], pixels: np.ndarray = R12, **elements: Any) -> Case:
    elements = {"BitsStored": 12, "ModalityLUTSequence": sequence} | elements
    return Case(f"Modality LUT, {name}", pixels, elements)


TABLES = [
    voi("whole range", table(0, C12, 12)),
    voi("part of the range", table(700, curve(900, 10), 10)),
    voi("two entries", table(2000, [5, 4000], 12)),
    voi("65536 entries", table(0, curve(65536, 16), 16), pixels=ramp(16), BitsStored=16),
    voi("and window", table(0, C12, 12), WindowCenter=10, WindowWidth=100),
    voi("8 bits in words", table(0, curve(4096, 8), 8)),
    voi("8 bits, packed OW", packed(curve(4095, 8), "OW")),
    voi("8 bits, packed US", packed(curve(4096, 8), "US")),
    # A descriptor of 16 bits over entries of 12 is dark in both: C.11.2.1.1 takes its word for it.
    voi("fewer bits than given", table(0, C12, 16)),
    voi("no bits", table(0, C12, 0)),
    # The standard does not foresee it. DCMTK cuts the high bits off, which folds the image.
    voi("more bits than given", table(0, C16, 12), table(0, C16, 16)),
    # C.11.2.1.1: values beyond the number of entries in the descriptor take the last one. DCMTK
    # goes by the length of the data.
    voi(
        "more entries than given",
        table(0, C12, 12, given=("US", 3000, 0, 12)), table(0, C12[:3000], 12),
    ),
    voi("signed", table(-2048, C12, 12), pixels=S12),
    # C.11.2.1.1: whether the first input value is US or SS follows from the input.
    voi("signed, as US", table(0, C12, 12, given=("US", 4096, 63488, 12)), pixels=S12),
    voi("signed by rescale", table(-1024, C12, 12), **RESCALED),
    voi("signed by rescale, as US", table(0, C12, 12, given=("US", 4096, 64512, 12)), **RESCALED),
    voi(
        "SS with 40000 entries", table(0, curve(40000, 16), 16, given=("SS", 40000, -20000, 16)),
        pixels=ramp(16, signed=True), BitsStored=16,
    ),
    modality("16 bits", table(0, C16, 16)),
    modality("falling", table(0, C12[::-1], 12)),
    modality("8 bits, packed", packed(curve(4096, 8), "OW")),
    modality("window", table(0, C12, 12), **WINDOW),
    modality("signed", table(-2048, C12, 12), S12),
    modality("signed, as US", table(0, C12, 12, given=("US", 4096, 63488, 12)), S12),
    modality(
        "before VOI LUT", table(-2048, C12, 12), S12, VOILUTSequence=table(100, curve(3000, 10), 10)
    ),
    # C.11.1: one or the other; the table wins in both.
    modality("and rescale", table(0, C12, 12), **RESCALED),
]  # fmt: skip

# Retired by PS3.5 8.1.1, still found in old files.
HIGH_BITS = [
    Case("12 bits from the top", R12 << 4, {"BitsStored": 12, "HighBit": 15}),
    Case("10 bits in the middle", (ramp(10) << 2) | 0xF001, {"BitsStored": 10, "HighBit": 11}),
    Case("8 bits from the top", (R12 << 4) | 0xF, {"BitsStored": 8, "HighBit": 15}),
    Case("signed 12 bits from the top", S12 << 4, {"BitsStored": 12, "HighBit": 15}),
    Case("rubbish above", R12 | 0xA000, TWELVE),
    Case("rubbish above, signed", S12 & 0x0FFF, TWELVE),
]  # fmt: skip


def with_padding(image: np.ndarray, value: int) -> np.ndarray:
    padded = image.copy()
    padded[40:44] = value
    return padded


# C.7.5.1.1.2: padding stays out of the dynamic range. DCMTK counts it in, so it is given the range
# of the rest as a window.
PADDING = [
    Case(
        "one value", with_padding(R12 // 2 + 1000, 0), TWELVE | {"PixelPaddingValue": 0},
        options=("+Ww", "2024", "2048"),
    ),
    Case(
        "a range, above", with_padding(R12 // 2, 4000),
        TWELVE | MONO1 | {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3900},
        options=("+Ww", "1024", "2048"),
    ),
    Case(
        "signed", with_padding(S12 // 2, -2000), TWELVE | {"PixelPaddingValue": -2000},
        options=("+Ww", "0", "2048"),
    ),
    Case("padding and a window", with_padding(R12, 0), TWELVE | WINDOW | {"PixelPaddingValue": 0}),
]  # fmt: skip

ALL = {
    "bits": BIT_DEPTHS, "window": WINDOWS, "rescale": RESCALES, "polarity": POLARITY,
    "table": TABLES, "high bit": HIGH_BITS, "padding": PADDING,
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{group}: {c}") for group, cases in ALL.items() for c in cases]
)
def test_generated_files(case: Case, tmp_path: Path) -> None:
    data = make_dicom(case.pixels, **case.elements)
    for_dcmtk = make_dicom(case.pixels, **case.elements | case.for_dcmtk)
    assert_agree(
        read_radiograph(data, "dicom").pixels, dcmtk_pixels(for_dcmtk, case.options, tmp_path)
    )


@pytest.mark.parametrize("seed", range(8))
def test_synthetic_radiographs_with_real_headers(seed: int, tmp_path: Path) -> None:
    data = as_bytes(make_sample_dicoms.make_dataset(seed, rows=96, columns=80))
    assert_agree(read_radiograph(data, "dicom").pixels, dcmtk_pixels(data, (), tmp_path))


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG3_UNCR.dcm"])
def test_real_radiographs(name: str, real_radiographs: dict[str, Path], tmp_path: Path) -> None:
    data = real_radiographs[name].read_bytes()
    assert_agree(read_radiograph(data, "dicom").pixels, dcmtk_pixels(data, (), tmp_path))


def test_all_sample_files_that_render(sample_folder: Path, tmp_path: Path) -> None:
    compared = 0
    for path in sorted((sample_folder / "dicom").glob("*.dcm")):
        try:
            ours = read_radiograph(path, "dicom").pixels
        except ImageRejected:
            continue
        assert_agree(ours, dcmtk_pixels(path.read_bytes(), (), tmp_path))
        compared += 1
    assert compared > 20
