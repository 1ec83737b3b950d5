"""Sentinels in every text of a header, and none of them in anything that comes out.

Each sentinel tells which element it stood in, so that a failure names the leak. A file is planted
by its bytes: no library would write most of these values.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_dataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from running import run_apart

from cxr_embed import read_radiograph
from cxr_embed.cli import inspect
from cxr_embed.cli import main as cli_main
from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.image_files import read_image
from cxr_embed.imaging.inspection import PATIENT_KEYWORDS
from cxr_embed.imaging.rendering import RENDERINGS

# Letters where a VR has letters, digits where it has only digits; neither occurs by chance.
WORD = "ZQXJ"
DIGITS = "907351264"
SENTINEL = re.compile(rb"(?i)" + WORD.encode() + rb"|" + DIGITS.encode())

# An element of every text VR, (0010,0010) to private ones, with as much as each VR can hold.
TEXTS: dict[str, str] = {
    "PatientName": f"{WORD}PN^JANE^^DR={WORD}PN2=x", "OtherPatientNames": f"{WORD}OPN^A\\B^{WORD}",
    "PatientID": f"{WORD}LO{DIGITS}", "PatientBirthDate": DIGITS, "PatientBirthTime": f"{DIGITS}.1",
    "AcquisitionDateTime": f"{DIGITS}00", "PatientSex": f"{WORD}SEX", "PatientAge": DIGITS,
    "PatientSize": f"{WORD}DS", "PatientWeight": f"{DIGITS}.5", "StageNumber": f"{WORD}IS",
    "PatientAddress": f"{WORD}ADDRESS", "PatientTelephoneNumbers": f"{WORD}SH",
    "PatientComments": f"{WORD}LT" * 40, "AdditionalPatientHistory": f"{WORD}HISTORY\r\n\x1b[31m",
    "InstitutionAddress": f"{WORD}ST", "LongCodeValue": f"{WORD}UC", "TextValue": f"{WORD}UT",
    "RetrieveURL": f"http://{WORD}/UR", "RetrieveAETitle": f"{WORD}AE", "StudyID": f"{WORD}SH2",
    "StudyDescription": f"{WORD}STUDY", "SeriesDescription": f"{WORD}SERIES",
    "StudyDate": DIGITS, "StudyTime": DIGITS, "ContentDate": DIGITS, "StationName": f"{WORD}STAT",
    "AccessionNumber": f"{WORD}ACC", "ReferringPhysicianName": f"{WORD}REF",
    "InstitutionName": f"{WORD}INST", "DeviceSerialNumber": f"{WORD}SERIAL",
    "StudyInstanceUID": f"1.2.{DIGITS}.1", "SeriesInstanceUID": f"1.2.{DIGITS}.2",
    "FrameOfReferenceUID": f"1.2.{DIGITS}.3", "BodyPartExamined": f"{WORD}BODY",
    "Manufacturer": f"{WORD}MAKER", "ImageComments": f"{WORD}NOTES", "ImageType": f"{WORD}\\TYPE",
    "PatientOrientation": f"{WORD}L\\F", "Laterality": f"{WORD}LAT", "ImageLaterality": f"{WORD}IL",
    "SOPInstanceUID": f"1.2.{DIGITS}.4",
    "WindowCenterWidthExplanation": f"{WORD}WINDOW", "RescaleType": f"{WORD}RT",
}  # fmt: skip

# Text in the elements that are looked at; each makes another file, rejected or not.
LOOKED_AT: dict[str, dict[str, str]] = {
    "charset": {"SpecificCharacterSet": f"{WORD} 100"},
    "charsets": {"SpecificCharacterSet": f"\\{WORD} IR\\ISO 2022 {WORD}"},
    "modality": {"Modality": f"{WORD}MOD"},
    "view": {"ViewPosition": f"{WORD}VIEW"},
    "photometric": {"PhotometricInterpretation": f"{WORD}PI"},
    "function": {"VOILUTFunction": f"{WORD}VLF", "WindowCenter": "900", "WindowWidth": "90"},
    "shape": {"PresentationLUTShape": f"{WORD}SHAPE"},
    "lossy": {"LossyImageCompression": f"{WORD}LI"},
    "frames": {"NumberOfFrames": f"{WORD}NF"},
    "centre": {"WindowCenter": f"{WORD}WC", "WindowWidth": "900"},
    "width": {"WindowCenter": "900", "WindowWidth": f"{WORD}WW"},
    "second_width": {"WindowCenter": f"900\\{WORD}", "WindowWidth": f"900\\{WORD}WW2"},
    "slope": {"RescaleSlope": f"{WORD}RS", "RescaleIntercept": "0"},
    "intercept": {"RescaleSlope": "1", "RescaleIntercept": f"{WORD}RI"},
}

# Text in the elements that hold binary numbers.
NUMBERS = (
    "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PlanarConfiguration",
)  # fmt: skip


# Text in the file meta, whose group a reader sees first.
META: dict[str, str] = {
    "MediaStorageSOPInstanceUID": f"1.2.{DIGITS}.5", "ImplementationClassUID": f"1.2.{DIGITS}.6",
    "ImplementationVersionName": f"{WORD}IVN", "SourceApplicationEntityTitle": f"{WORD}SOURCE",
    "SendingApplicationEntityTitle": f"{WORD}SEND", "ReceivingApplicationEntityTitle": f"{WORD}RE",
    "PrivateInformationCreatorUID": f"1.2.{DIGITS}.7", "PrivateInformation": f"{WORD}INFO",
}  # fmt: skip

GRADIENT = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
HEADER: dict[str, str | int] = {
    "Modality": "DX", "ViewPosition": "PA", "SamplesPerPixel": 1, "Rows": 40, "Columns": 50,
    "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12,
    "HighBit": 11, "PixelRepresentation": 0,
}  # fmt: skip

LONG_VRS = ("OB", "OW", "SQ", "UC", "UN", "UR", "UT")


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Returns an element in explicit little endian (PS3.5 7.1.2), whatever its value."""
    value += (b" " if vr not in ("OB", "UI", "UN") else b"\0") * (len(value) % 2)
    size = len(value) if length is None else length
    form = "<HH2sHI" if vr in LONG_VRS else "<HH2sH"
    numbers = (0, size) if vr in LONG_VRS else (size,)
    return struct.pack(form, tag >> 16, tag & 0xFFFF, vr.encode(), *numbers) + value


def named(keyword: str, value: str | int) -> tuple[int, bytes]:
    """Returns an element by its keyword, with the VR that the dictionary gives it."""
    tag = tag_for_keyword(keyword) or 0
    data = struct.pack("<H", value) if isinstance(value, int) else value.encode()
    return tag, element(tag, dictionary_VR(tag)[:2], data)


def sequence(keyword: str, *items: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    tag = tag_for_keyword(keyword) or 0
    contents = [b"".join(data for _, data in sorted(item)) for item in items]
    framed = [struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data for data in contents]
    return tag, element(tag, "SQ", b"".join(framed))


def planted(
    syntax: str = ExplicitVRLittleEndian, pixels: bytes | None = None, **replaced: str
) -> bytes:
    """Returns a radiograph with texts everywhere: elements, private blocks, nested sequences."""
    elements = [named(k, v) for k, v in {**TEXTS, **HEADER, **replaced}.items()]
    for number, vr in enumerate(("LO", "PN", "SH", "ST", "LT", "UT", "UC", "CS", "DS", "IS", "AE")):
        elements.append((tag := 0x00091001 + number, element(tag, vr, f"{WORD}{vr}".encode())))
    for number, vr in enumerate(("UI", "DA", "TM", "DT", "AS")):
        elements.append((tag := 0x00091020 + number, element(tag, vr, DIGITS.encode())))
    for number, vr in enumerate(("UN", "OB", "OW")):
        elements.append((tag := 0x00091030 + number, element(tag, vr, f"{WORD}{vr}".encode())))
    elements.append((0x00090010, element(0x00090010, "LO", f"{WORD} CREATOR".encode())))
    person = [named(keyword, TEXTS[keyword]) for keyword in ("PatientName", "PatientID", "StudyID")]
    order = [named("RequestedProcedureDescription", f"{WORD}ORDER")]
    deeper = [*order, sequence("RequestAttributesSequence", person)]
    elements.append(sequence("RequestAttributesSequence", deeper, person))
    table = [
        (0x00283002, element(0x00283002, "US", struct.pack("<3H", 2000, 0, 12))),
        named("LUTExplanation", f"{WORD}LUT"),
        (0x00283006, element(0x00283006, "OW", np.arange(2000, dtype="<u2").tobytes())),
    ]
    elements.append(sequence("VOILUTSequence", table))
    length = None if pixels is None else 0xFFFFFFFF
    data = GRADIENT.tobytes() if pixels is None else pixels
    elements.append(
        (0x7FE00010, element(0x7FE00010, "OW" if pixels is None else "OB", data, length))
    )
    meta = [named(k, v) for k, v in {**META, "TransferSyntaxUID": syntax}.items()]
    head = b"".join(data for _, data in sorted(meta))
    group_length = element(0x00020000, "UL", struct.pack("<I", len(head)))
    return bytes(128) + b"DICM" + group_length + head + b"".join(d for _, d in sorted(elements))


def radiographs() -> Iterator[tuple[str, bytes]]:
    """Yields file names and contents: good, odd, rejected and broken ones."""
    good = planted()
    yield "good.dcm", good
    yield "zipped.dcm.gz", gzip.compress(good)
    for name, replaced in LOOKED_AT.items():
        yield f"{name}.dcm", planted(**replaced)
    for keyword in NUMBERS:
        yield f"{keyword}.dcm", planted(**{keyword: f"{WORD}{keyword}"})
    dataset = make_dataset(GRADIENT, BitsStored=12)
    dataset.compress(JPEG2000Lossless)
    data = planted(JPEG2000Lossless, dataset.PixelData)
    yield "compressed.dcm", data
    yield "unknown_syntax.dcm", planted(f"1.2.826.0.1.{DIGITS}", dataset.PixelData)
    yield "damaged_stream.dcm", data.replace(b"\xff\x52", WORD[:2].encode())
    yield "no_pixels.dcm", good[: good.index(struct.pack("<HH", 0x7FE0, 0x0010))]
    for kept in (0.3, 0.6, 0.9):
        yield f"cut_{kept}.dcm", good[: int(len(good) * kept)]
    yield "no_preamble.dcm", good[132:]
    yield "wrong_length.dcm", re.sub(rb"\x10\x00\x10\x00PN..", b"\x10\x00\x10\x00PN\xff\xff", good)
    yield "wrong_vr.dcm", good.replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00QQ", 1)
    yield "text.dcm", f"{WORD} is no radiograph".encode()
    yield "two_letters.dcm", planted(BitsAllocated=WORD[:2])
    yield "broken_picture.png", b"\x89PNG\r\n\x1a\n" + WORD.encode() * 20
    yield "broken_photograph.jpg", b"\xff\xd8\xff\xe0" + WORD.encode() * 20
    yield from pictures()


def pictures() -> Iterator[tuple[str, bytes]]:
    """Yields a PNG and a JPEG with text in their metadata."""
    image = Image.fromarray((GRADIENT % 256).astype(np.uint8))
    texts, exif, buffers = PngInfo(), Image.Exif(), (io.BytesIO(), io.BytesIO())
    for key in ("Title", f"{WORD}KEY", "Comment"):
        texts.add_text(key, f"{WORD}TEXT")
        texts.add_itxt(key, f"{WORD}ITXT", zip=True)
    for tag in (0x010E, 0x013B, 0x9286, 0x8298, 0x0132):
        exif[tag] = f"{WORD}EXIF{tag}"
    image.save(buffers[0], "PNG", pnginfo=texts, exif=exif)
    image.save(buffers[1], "JPEG", exif=exif, comment=f"{WORD}COMMENT")
    yield "picture.png", buffers[0].getvalue()
    yield "photograph.jpg", buffers[1].getvalue()
    yield "cut_picture.png", buffers[0].getvalue()[:-60]
    yield "cut_photograph.jpg", buffers[1].getvalue()[:-300]


FILES = dict(radiographs())


def leaks(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    return [
        data[max(m.start() - 40, 0) : m.end() + 20].decode("latin-1")
        for m in SENTINEL.finditer(data)
    ]


@pytest.fixture
def everything_said(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Collects what is printed, warned and logged, down to the most talkative level."""
    records: list[logging.LogRecord] = []
    collector, root = logging.Handler(level=0), logging.getLogger()
    collector.emit = records.append  # type: ignore[method-assign]
    level = root.level
    root.addHandler(collector)
    root.setLevel(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def said() -> str:
            captured = capfd.readouterr()
            lines = [captured.out, captured.err, *(str(warning.message) for warning in caught)]
            lines += [f"{record.getMessage()} {record.exc_info}" for record in records]
            return "\n".join(lines)

        yield said
    root.removeHandler(collector)
    root.setLevel(level)


def test_the_files_hold_sentinels_and_reach_every_end() -> None:
    ends = set()
    for name, data in FILES.items():
        assert SENTINEL.search(gzip.decompress(data) if name.endswith("gz") else data), name
        for rendering in RENDERINGS:
            try:
                read_image(data, rendering=rendering)
                ends.add("rendered")
            except ImageRejected as rejected:
                ends.add(rejected.reason)
    assert ends >= {
        "rendered", "bad_window", "decode_error", "truncated", "not_grayscale", "no_pixel_data",
        "unsupported_transfer_syntax", "unsupported_bit_depth", "not_an_image",
    }  # fmt: skip


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", FILES)
def test_reading(name: str, rendering: str, everything_said: Callable[[], str]) -> None:
    try:
        radiograph = read_image(FILES[name], rendering=rendering)
        told = f"{radiograph.warnings} {radiograph.steps}"
    except ImageRejected as rejected:
        # A traceback as a notebook shows it, causes included, but not the lines of this file.
        told = "".join(traceback.format_exception(rejected)) + repr(rejected) + repr(rejected.steps)
    assert leaks(told + everything_said()) == []


def test_reading_a_file_that_is_cut_anywhere(everything_said: Callable[[], str]) -> None:
    good = FILES["good.dcm"]
    told = []
    for end in range(0, len(good) - 4000, 7):
        try:
            read_radiograph(good[:end])
        except ImageRejected as rejected:
            told.append("".join(traceback.format_exception(rejected)))
    assert leaks("".join(told) + everything_said()) == []


@pytest.mark.parametrize("name", FILES)
def test_inspect(name: str, tmp_path: Path, everything_said: Callable[[], str]) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    target = tmp_path / "drawn.png"
    status = cli_main.guarded(inspect.main, [str(path), f"--output_path={target}"])
    assert status in (0, 1)
    assert leaks(everything_said()) == []
    assert leaks(target.read_bytes()) == []


def test_inspect_shows_them_on_demand_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.dcm").write_bytes(FILES["good.dcm"])
    cli_main.guarded(inspect.main, [str(tmp_path / "good.dcm"), "--show_patient_tags"])
    shown = capsys.readouterr().out
    assert len(leaks(shown)) >= len(PATIENT_KEYWORDS)
    assert "\x1b" not in shown


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real SavedModel: the image's mean in each of 4 x 4 fields."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            return {"embedding": tf.reshape(tf.image.resize(image, [4, 4], "area"), [-1, 16])}

    folder, model = tmp_path_factory.mktemp("model"), Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.__call__})
    return folder


def test_a_whole_run(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in FILES.items():
        (tmp_path / "in" / name).write_bytes(data)
    out = tmp_path / "out"
    ran = run_apart(
        input_path=tmp_path / "in", output_path=out, model_path=tiny_model, rendering="dicom",
        verbosity=1,
    )  # fmt: skip
    assert ran.status == 1, ran.err
    assert len(list(out.glob("*.tfrecord"))) > 8
    assert leaks(ran.out) == []
    assert leaks(ran.err) == []
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"manifest.json", "embedded.csv", "failures.csv"}
    for path in written:
        assert leaks(path.read_bytes()) == [], path
