"""Reads a DICOM header: single elements, and the attributes that decide the pixels.

No message holds the value of a text element: those may identify a patient.
"""

from __future__ import annotations

from cxr_embed.imaging import safe_pydicom  # noqa: F401  must come before pydicom

# isort: split

import math
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.rendering_attributes import (
    UNDEFINED,
    VOI_FUNCTIONS,
    LookupTable,
    RenderingAttributes,
    TooFewEntries,
    Window,
    parse_lookup_table,
)


def _raw_value(dataset: Dataset, keyword: str) -> Any:
    """Returns an element's value, text still as bytes where pydicom has not converted it."""
    tag = tag_for_keyword(keyword)
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    return element.value


def is_absent(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is missing or empty, which is the same here."""
    tag = tag_for_keyword(keyword)
    if tag not in dataset:
        return True
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement) and keyword.endswith("Sequence"):
        return not dataset[tag].value
    return not element.value and element.value != 0


def text(dataset: Dataset, keyword: str) -> str | None:
    """Returns a code string in upper case; None where the element is absent."""
    value = _raw_value(dataset, keyword)
    if value is None:
        return None if tag_for_keyword(keyword) not in dataset else ""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0").upper()


def numbers(dataset: Dataset, keyword: str, reason: str = "decode_error") -> list[float]:
    """Returns the values of a decimal string; empty where it is absent or its first is empty.

    Only the first value is ever used, so only the first has to be a number.
    """
    value = _raw_value(dataset, keyword)
    if value is None:
        return []
    if isinstance(value, bytes):
        parts = value.decode("ascii", "replace").strip(" \0").split("\\")
    elif isinstance(value, str | int | float):
        parts = str(value).split("\\")
    else:
        parts = [str(part) for part in value] if np.iterable(value) else [str(value)]
    if not parts or not parts[0].strip(" \0"):
        return []
    try:
        first = float(parts[0].strip(" \0"))
    except ValueError:
        first = math.nan
    if not math.isfinite(first):
        raise ImageRejected(reason, f"{tag_text(keyword)} is not a number")
    return [first] * len(parts)


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Returns an integer element; `default` where it is absent or empty."""
    if is_absent(dataset, keyword):
        if default is None:
            raise ImageRejected("decode_error", f"{tag_text(keyword)} is missing")
        return default
    try:
        return int(dataset[keyword].value)
    except Exception:
        raise ImageRejected("decode_error", f"{tag_text(keyword)} is not one integer") from None


def tag_text(keyword: str) -> str:
    """Returns the name and number of an element, as in Rows (0028,0010)."""
    tag = int(tag_for_keyword(keyword) or 0)
    return f"{keyword_for_tag(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def rendering_attributes_of(dataset: Dataset, rendering: str) -> RenderingAttributes:
    """Collects what decides the rendered pixels. An empty element counts as absent."""
    slopes, intercepts = numbers(dataset, "RescaleSlope"), numbers(dataset, "RescaleIntercept")
    rescale = (slopes[0], intercepts[0]) if slopes and intercepts else None
    signed = dataset.PixelRepresentation == 1
    modality_lut = _lookup_table(dataset, "ModalityLUTSequence", "decode_error", signed)
    voi_lut = None
    if rendering == "dicom":  # the other does not use it: a damaged one makes no difference there
        signed = modality_lut is None and _may_be_negative(dataset, rescale)
        voi_lut = _lookup_table(dataset, "VOILUTSequence", "bad_window", signed)
    return RenderingAttributes(
        monochrome1=text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        modality_lut=modality_lut,
        rescale=rescale,
        window=_window(dataset),
        voi_lut=voi_lut,
        voi_function=_voi_function(dataset),
        inverse=text(dataset, "PresentationLUTShape") == "INVERSE",
        padding=_padding(dataset) if rendering == "dicom" else None,
    )


def _voi_function(dataset: Dataset) -> str:
    """Returns a defined term (C.11.2.1.3), so that rendering handles no text of the file."""
    term = text(dataset, "VOILUTFunction") or ""
    return term if term in ("", *VOI_FUNCTIONS) else UNDEFINED


def _window(dataset: Dataset) -> Window | None:
    centres = numbers(dataset, "WindowCenter", "bad_window")
    widths = numbers(dataset, "WindowWidth", "bad_window")
    if not centres or not widths:
        return None
    return Window(centres[0], widths[0], len(centres) > 1, len(widths) > 1)


def _may_be_negative(dataset: Dataset, rescale: tuple[float, float] | None) -> bool:
    """Whether any stored value that fits its bits is negative once rescaled (C.11.2.1.1)."""
    slope, intercept = rescale or (1.0, 0.0)
    values = 1 << dataset.BitsStored
    lowest = -values // 2 if dataset.PixelRepresentation == 1 else 0
    return min(slope * value + intercept for value in (lowest, lowest + values - 1)) < 0


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """C.7.5.1.1.2: one padding value, or a range up to a limit, as stored values."""
    if is_absent(dataset, "PixelPaddingValue"):
        return None
    value = integer(dataset, "PixelPaddingValue")
    limit = integer(dataset, "PixelPaddingRangeLimit", value)
    # Some files have US instead of SS here, and bits above Bits Stored, which pixels do not keep.
    unused = max(16 - dataset.BitsStored, 0)
    kind = np.int16 if dataset.PixelRepresentation == 1 else np.uint16
    ends = np.array([value & 0xFFFF, limit & 0xFFFF], np.uint16) << unused
    low, high = sorted(ends.view(kind) >> unused)
    return int(low), int(high)


def _lookup_table(
    dataset: Dataset, keyword: str, reason: str, signed_input: bool
) -> LookupTable | None:
    """Reads the first item of a LUT sequence (C.11.1.1.1, C.11.2.1.1)."""
    if is_absent(dataset, keyword):
        return None
    implicit, little_endian = dataset.original_encoding
    try:
        return parse_lookup_table(
            dataset[keyword].value[0],
            signed_input=signed_input,
            implicit=implicit is True,
            little_endian=little_endian is not False,
        )
    except TooFewEntries as error:
        raise ImageRejected(reason, f"{tag_text(keyword)}: {error}") from None
    except Exception:
        raise ImageRejected(
            reason, f"{tag_text(keyword)} has no usable LUT Descriptor and Data"
        ) from None
