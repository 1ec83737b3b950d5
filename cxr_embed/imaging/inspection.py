"""Collects how one file is rendered: its elements, decoder, steps and warnings.

Only the elements that decide the pixels are shown, and of their text only terms that the standard
defines. Nothing else of a header is shown, unless patient tags are asked for.
"""

from __future__ import annotations

from cxr_embed.imaging import safe_pydicom  # must come before pydicom

# isort: split

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.uid import UID, UID_dictionary

from cxr_embed import file_types
from cxr_embed.errors import ImageRejected, one_line
from cxr_embed.imaging import decoders, dicom
from cxr_embed.imaging.image_files import read_image
from cxr_embed.imaging.rendering import RENDERINGS
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph

# Text is shown only where it is one of these (PS3.3 C.7.3.1.1.1, C.8.1.1, C.7.6.3.1.2, C.11.2.1.3,
# C.11.6.1.2, C.7.6.1.1.5). Any other text may be a name.
DEFINED_TERMS: dict[str, tuple[str, ...]] = {
    "Modality": (
        *dicom.RADIOGRAPH_MODALITIES, "CT", "DOC", "ECG", "ES", "GM", "IO", "KO", "MR", "NM", "OCT",
        "OP", "PR", "PT", "REG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SEG", "SM", "SR", "US",
        "XC",
    ),
    "ViewPosition": ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"),
    "PhotometricInterpretation": (
        "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "YBR_FULL",
        "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
    ),
    "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID"),
    "PresentationLUTShape": ("IDENTITY", "INVERSE", "LIN OD"),
    "LossyImageCompression": ("00", "01"),
}  # fmt: skip

_NUMBERS = frozenset(
    ("SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
     "HighBit", "PixelRepresentation", "PlanarConfiguration", "PixelPaddingValue",
     "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope")
)  # fmt: skip

_SHOWN_VALUES = 6

# Reported where they are absent.
_MISSED = (
    "ViewPosition", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "VOILUTSequence", "PresentationLUTShape", "PixelPaddingValue", "PixelData",
)  # fmt: skip

PATIENT_KEYWORDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "AccessionNumber",
    "StudyDate", "StudyTime", "StudyDescription", "SeriesDescription", "BodyPartExamined",
    "InstitutionName", "ReferringPhysicianName", "Manufacturer", "ManufacturerModelName",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
)  # fmt: skip


@dataclass(frozen=True)
class Element:
    """A data element as text: its name, its number as (0028,0010), and its value."""

    name: str
    number: str
    value: str


@dataclass(frozen=True)
class Rendered:
    """The result of one rendering: a radiograph, or its rejection."""

    rendering: str
    radiograph: Radiograph | None = None
    rejected: ImageRejected | None = None

    @property
    def steps(self) -> Sequence[str]:
        """The steps from stored values to pixels, in order, up to a rejection."""
        if self.radiograph is not None:
            return self.radiograph.steps
        return self.rejected.steps if self.rejected is not None else ()


@dataclass(frozen=True)
class Inspection:
    """How the program reads one file.

    Attributes:
        file_type: `DICOM`, `PNG`, `JPEG` or `unknown`, with `, gzip-compressed` where it is.
        bytes: the file's size.
        transfer_syntax: name and UID; empty for other file types.
        decoder: the packages that decode its pixels.
        elements: the elements that decide the pixels, where they are present.
        absent: names of those elements whose absence matters.
        patient: patient and study elements; empty unless asked for.
        rendered: one for each rendering asked for; only one for PNG and JPEG, whose pixels do not
            depend on it.
    """

    file_type: str
    bytes: int
    transfer_syntax: str = ""
    decoder: str = ""
    elements: list[Element] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    patient: list[Element] = field(default_factory=list)
    rendered: list[Rendered] = field(default_factory=list)


@safe_pydicom.muted()
def inspect_file(
    data: bytes,
    renderings: Sequence[str] = tuple(RENDERINGS),
    *,
    file_type: str = "auto",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    with_patient: bool = False,
) -> Inspection:
    """Inspects one image file.

    Args:
        data: the whole file.
        renderings: the renderings to try.
        file_type: as in `image_files.read_image`.
        max_pixels: likewise.
        with_patient: also read the elements that identify the patient.

    Returns:
        The inspection. A file that cannot be read has rejections in `rendered`.

    Raises:
        MachineFault: the machine lacks something that any image needs.
    """
    kind, contents = file_types.sniff(data), data
    is_gzip = kind == "gzip"
    if is_gzip:
        try:
            contents = bytes(file_types.gunzip(data, dicom.size_limit(max_pixels)))
            kind = file_types.sniff(contents)
        except ImageRejected:
            kind = None
    words = f"{kind.upper() if kind else 'unknown'}{', gzip-compressed' * is_gzip}"
    found = Inspection(words, len(data))
    if kind == "dicom":
        found = _with_header(found, contents, max_pixels, with_patient)
    else:
        renderings = renderings[:1]
    for rendering in renderings:
        try:
            radiograph = read_image(data, file_type, rendering, max_pixels=max_pixels)
            found.rendered.append(Rendered(rendering, radiograph))
        except ImageRejected as rejected:
            found.rendered.append(Rendered(rendering, rejected=rejected))
    return found


def _with_header(found: Inspection, data: bytes, max_pixels: int, with_patient: bool) -> Inspection:
    try:
        dataset, syntax = dicom.read_header(data, max_pixels=max_pixels)
        patient = []
        if with_patient:
            extra, _ = dicom.read_header(data, PATIENT_KEYWORDS, max_pixels=max_pixels)
            patient = [
                Element(*_name(keyword), _plain_text(extra, keyword))
                for keyword in PATIENT_KEYWORDS
                if keyword in extra
            ]
    except ImageRejected:  # the renderings give the reason
        return found
    present = [keyword for keyword in dicom.KEYWORDS if keyword in dataset]
    return Inspection(
        found.file_type,
        found.bytes,
        transfer_syntax=_syntax_words(syntax),
        decoder=_decoder_words(syntax),
        elements=[Element(*_name(keyword), _value(dataset, keyword)) for keyword in present],
        absent=[_name(keyword)[0] for keyword in _MISSED if keyword not in dataset],
        patient=patient,
    )


def _name(keyword: str) -> tuple[str, str]:
    tag = int(tag_for_keyword(keyword) or 0)
    return dictionary_description(tag), f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _value(dataset: Dataset, keyword: str) -> str:
    """Returns an element's value as text: numbers, sizes and defined terms only."""
    try:
        value = dataset[keyword].value
        if keyword in _NUMBERS:
            return _number_words(value)
        if keyword in DEFINED_TERMS:
            return _term_words(keyword, value)
        if keyword.endswith("Sequence"):
            return _table_words(value)
        return f"{len(value):,} bytes"
    except Exception:  # of any type, with the value in its message
        return "(damaged)"


def _number_words(value: Any) -> str:
    values: list[Any] = (
        [value] if isinstance(value, str | int | float) or value is None else list(value)
    )
    if values in ([None], [""], []):
        return "(empty)"
    words = []
    for number in values[:_SHOWN_VALUES]:
        try:
            words.append(f"{float(number):.10g}")
        except (TypeError, ValueError):
            words.append("(not a number)")
    more = f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else ""
    return ", ".join(words) + more


def _term_words(keyword: str, value: Any) -> str:
    text = str(value or "").strip(" \0").upper()
    if not text:
        return "(empty)"
    return text if text in DEFINED_TERMS[keyword] else "(not a defined term)"


def _table_words(items: Any) -> str:
    if not items:
        return "(empty)"
    count, first, bits = (int(number) for number in items[0].LUTDescriptor)
    first_item = f"{count or 65536} entries of {bits} bits, the first for {first}"
    return first_item if len(items) == 1 else f"{first_item}; {len(items) - 1} more not used"


def _plain_text(dataset: Dataset, keyword: str) -> str:
    try:
        text = one_line(dataset[keyword].value)
    except Exception:
        return "(damaged)"
    # A terminal acts on control characters, which a text element may hold.
    return "".join(c if c.isprintable() else "?" for c in text) or "(empty)"


def _syntax_words(uid: str) -> str:
    return f"{UID(uid).name} ({uid})" if uid in UID_dictionary else "(not a known UID)"


def _decoder_words(uid: str) -> str:
    if uid in decoders.NATIVE:
        return "none needed"
    decoder = decoders.PINNED.get(uid)
    if decoder is None:
        return "none"
    versions = decoders.decoder_versions()
    return ", ".join(f"{name} {versions[name]}" for name in decoder.distributions)
