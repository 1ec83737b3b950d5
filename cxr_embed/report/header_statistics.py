"""Counts the values of header elements in a sample of images.

The elements identify neither a patient nor a place: no manufacturers, dates or names. Text is
counted only if it is one of the standard's defined terms (PS3.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pydicom import Dataset
from pydicom.uid import UID, UID_dictionary

from cxr_embed import file_types
from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import dicom
from cxr_embed.imaging.dicom_header import is_absent, text
from cxr_embed.imaging.inspection import DEFINED_TERMS
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS

VIEW = "View Position"

# The counted properties, in the order of the report.
PROPERTIES = (
    "File type", "Modality", VIEW, "Photometric Interpretation", "Bits Stored",
    "Greyscale transformation", "Compression",
)  # fmt: skip

ABSENT = "not given"
UNDEFINED = "not a defined term"

_TERMS = {
    "Modality": "Modality",
    VIEW: "ViewPosition",
    "Photometric Interpretation": "PhotometricInterpretation",
}
_KEYWORDS = (*_TERMS.values(), "BitsStored", "WindowCenter", "WindowWidth", "VOILUTSequence")


def describe_header(data: bytes) -> dict[str, str]:
    """Returns the values of one file's header, by the names in `PROPERTIES`.

    Args:
        data: the whole file. PNG and JPEG files have only a file type.
    """
    kind = file_types.sniff(data)
    if kind == "gzip":
        try:
            data = bytes(file_types.gunzip(data, dicom.size_limit(DEFAULT_MAX_PIXELS)))
        except ImageRejected:
            return {}
        kind = file_types.sniff(data)
    if kind != "dicom":
        return {"File type": kind.upper()} if kind else {}
    try:
        dataset, syntax = dicom.read_header(data, _KEYWORDS)
        return {
            "File type": "DICOM",
            **{name: _term(dataset, keyword) for name, keyword in _TERMS.items()},
            "Bits Stored": _bits(dataset),
            "Greyscale transformation": _transformation(dataset),
            "Compression": UID(syntax).name if syntax in UID_dictionary else UNDEFINED,
        }
    except Exception:  # damaged elements may raise any exception; the run tables have the reason
        return {"File type": "DICOM"}


def count(headers: Iterable[Mapping[str, str]]) -> dict[str, list[tuple[str, int]]]:
    """Returns for each property its values and their numbers of images, most common first."""
    counters: dict[str, Counter[str]] = {name: Counter() for name in PROPERTIES}
    for header in headers:
        for name, value in header.items():
            counters[name][value] += 1
    return {
        name: sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        for name, counter in counters.items()
        if counter
    }


def _term(dataset: Dataset, keyword: str) -> str:
    value = text(dataset, keyword)
    if not value:
        return ABSENT
    return value if value in DEFINED_TERMS[keyword] else UNDEFINED


def _bits(dataset: Dataset) -> str:
    return ABSENT if is_absent(dataset, "BitsStored") else str(int(dataset["BitsStored"].value))


def _transformation(dataset: Dataset) -> str:
    has_window = not is_absent(dataset, "WindowCenter") and not is_absent(dataset, "WindowWidth")
    has_table = not is_absent(dataset, "VOILUTSequence")
    if has_window and has_table:
        return "window and VOI LUT"
    if has_window:
        return "window"
    return "VOI LUT" if has_table else "neither window nor VOI LUT"
