"""Reads, checks, decodes and renders a DICOM file: its bytes become a `Radiograph`.

The header is checked before any pixel is decoded. No message holds the value of a text element,
which may identify a patient.
"""

from __future__ import annotations

from cxr_embed.imaging import safe_pydicom  # must come before pydicom

# isort: split

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom.config
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from cxr_embed import file_types
from cxr_embed.errors import ImageRejected, ImageSkipped
from cxr_embed.file_types import PREFIX_BYTES, Buffer
from cxr_embed.imaging import decoders
from cxr_embed.imaging.dicom_file import is_deflated, read_dicom, read_dicom_start
from cxr_embed.imaging.dicom_header import integer, is_absent, rendering_attributes_of, text
from cxr_embed.imaging.reading_errors import while_parsing, while_rendering
from cxr_embed.imaging.reduced_jpeg2000 import has_fixed_range
from cxr_embed.imaging.rendering import render, require_rendering
from cxr_embed.imaging.rendering_attributes import RenderingAttributes
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph

# pydicom's warnings about odd values quote the value, so they are switched off. Values that cannot
# be used are rejected here with a reason code.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# A file may hold this many bytes beside its pixels: long private elements and the like.
HEADER_ALLOWANCE = 64 << 20

RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "RF", "XA", "MG", "PX", "OT")
FRONTAL_VIEWS = ("AP", "PA")

# The only elements that are read. All others, names and dates among them, are never kept.
KEYWORDS = (
    "Modality", "ViewPosition", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "VOILUTSequence", "PresentationLUTShape", "LossyImageCompression", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
_TAGS = [tag_for_keyword(keyword) for keyword in KEYWORDS]

_DICOM = "DICOM structure"

# Bits Allocated is 32 at most.
_BYTES_A_PIXEL = 4


@safe_pydicom.muted()
def read_dicom_image(
    source: Buffer | Dataset,
    rendering: str = "cxr_foundation",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    views: str = "all",
    cover: tuple[int, int] | None = None,
) -> Radiograph:
    """Reads and renders one single-frame greyscale DICOM image.

    Args:
        source: the bytes of a file, not gzip-compressed; or a pydicom Dataset.
        rendering: `cxr_foundation` (what the published embeddings were made from) or `dicom`
            (PS3.3's greyscale pipeline).
        max_pixels: images with more pixels are rejected from their header.
        views: `all`, or `frontal` to raise `ImageSkipped` where View Position is present and is
            neither AP nor PA.
        cover: as in `cxr_embed.imaging.image_files.read_image`.

    Returns:
        The radiograph, uint8 or uint16 pixels of shape (rows, columns), bright = dense.

    Raises:
        ImageRejected: the image is not rendered; `reason` gives the cause. With
            `unexpected_error`, `__cause__` is the exception.
        ImageSkipped: only with `views="frontal"`.
        MachineFault: the machine lacks something that any image needs.
        MemoryError: memory ran out.
        ValueError: `rendering` is unknown.
    """
    require_rendering(rendering)
    steps: list[str] = []
    try:
        with while_parsing(_DICOM):
            limit = size_limit(max_pixels)
            if not isinstance(source, Dataset) and _is_deflated(source):
                # Its header is judged before the whole of it is inflated.
                limit = largest_size(source[:PREFIX_BYTES], max_pixels=max_pixels, views=views)
            dataset, transfer_syntax = _open(source, limit, _TAGS)
            _check_view(dataset, views)
            _check_header(dataset, transfer_syntax, max_pixels)
            attributes = rendering_attributes_of(dataset, rendering)
            warnings = _warnings(dataset, transfer_syntax, attributes, rendering)
            if not has_fixed_range(attributes):
                cover = None
            stored = _decode(dataset, transfer_syntax, rendering, steps, cover)
        with while_rendering():
            pixels = render(stored, attributes, rendering, steps)
        return Radiograph(pixels, warnings, text(dataset, "ViewPosition"), steps)
    except ImageRejected as rejected:
        rejected.steps = tuple(steps)
        raise


@safe_pydicom.muted()
def largest_size(start: Buffer, *, max_pixels: int = DEFAULT_MAX_PIXELS, views: str = "all") -> int:
    """Judges a DICOM file by its first bytes.

    Args:
        start: the first bytes of the file, not gzip-compressed.
        max_pixels: as `read_dicom_image` takes it.
        views: likewise.

    Returns:
        The size in bytes above which the file cannot be a radiograph of its Rows and Columns, or
        of `max_pixels` where these are not within `start`.

    Raises:
        ImageRejected: `read_dicom_image` rejects the whole file for the same reason, with any bytes
            after `start`.
        ImageSkipped: likewise.
    """
    try:
        with while_parsing(_DICOM):
            dataset, transfer_syntax, is_whole_header = read_dicom_start(start, _TAGS)
    except ImageRejected:  # what ends early or is damaged here may be in order in the whole file
        return size_limit(max_pixels)
    with while_parsing(_DICOM):
        if is_whole_header:
            _check_view(dataset, views)
            _check_header(dataset, transfer_syntax, max_pixels, is_whole=False)
    try:
        pixels = integer(dataset, "Rows") * integer(dataset, "Columns")
    except ImageRejected:
        return size_limit(max_pixels)
    return size_limit(pixels if 0 < pixels < max_pixels else max_pixels)


def size_limit(pixels: int) -> int:
    """Returns how many bytes a DICOM file of one frame of so many pixels can need."""
    return _BYTES_A_PIXEL * pixels + HEADER_ALLOWANCE


@safe_pydicom.muted()
def read_header(
    source: Buffer | Dataset,
    keywords: Sequence[str] = KEYWORDS,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> tuple[Dataset, str]:
    """Reads some elements of a DICOM file without checking them.

    Args:
        source: as `read_dicom_image` takes it.
        keywords: the elements to keep; by default those that decide the pixels.
        max_pixels: limits what a deflated data set may inflate to.

    Returns:
        The elements that are present, and the transfer syntax UID.

    Raises:
        ImageRejected: not readable as DICOM.
    """
    with while_parsing(_DICOM):
        tags = [tag_for_keyword(keyword) for keyword in keywords]
        return _open(source, size_limit(max_pixels), tags)


def _is_deflated(source: Buffer) -> bool:
    return file_types.sniff(source) == "dicom" and is_deflated(source)


def _open(source: Buffer | Dataset, limit: int, tags: list[Any]) -> tuple[Dataset, str]:
    """Returns the data set and its transfer syntax UID; it may inflate to `limit` bytes."""
    if isinstance(source, Dataset):
        meta = getattr(source, "file_meta", None)
        syntax = str(getattr(meta, "TransferSyntaxUID", "") or ExplicitVRLittleEndian)
        return _excerpt(source, tags), syntax
    if not source:
        raise ImageRejected("not_an_image", "the file is empty")
    if file_types.sniff(source) != "dicom":
        raise ImageRejected("not_an_image", "neither a DICOM preamble nor a DICOM data set")
    return read_dicom(source, tags, limit)


def _excerpt(dataset: Dataset, tags: list[Any]) -> Dataset:
    """Returns a data set of some elements, so that the caller's own is never written to."""
    excerpt = Dataset({tag: dataset.get_item(tag) for tag in tags if tag in dataset})
    excerpt.set_original_encoding(*dataset.original_encoding)
    if hasattr(dataset, "file_meta"):
        excerpt.file_meta = dataset.file_meta
    return excerpt


def _check_view(dataset: Dataset, views: str) -> None:
    """Raises `ImageSkipped` where only frontal views are asked for and this is another one."""
    view = text(dataset, "ViewPosition")
    if views == "frontal" and view is not None and view not in FRONTAL_VIEWS:
        raise ImageSkipped("not_frontal", "View Position (0018,5101) is neither AP nor PA")


def _check_header(
    dataset: Dataset, transfer_syntax: str, max_pixels: int, *, is_whole: bool = True
) -> None:
    """Rejects what cannot become a radiograph before its pixels are decoded.

    Args:
        dataset: the elements up to Pixel Data, which must be one of them.
        transfer_syntax: its UID.
        max_pixels: as `read_dicom_image` takes it.
        is_whole: the value of Pixel Data is all that the file has.
    """
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise ImageRejected("unsupported_bit_depth", "floating-point pixel data")
        raise ImageRejected("no_pixel_data", "no Pixel Data (7FE0,0010)")
    photometric = text(dataset, "PhotometricInterpretation")
    samples = integer(dataset, "SamplesPerPixel", 1)
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        raise ImageRejected(
            "not_grayscale",
            f"Samples per Pixel {samples}, Photometric Interpretation (0028,0004) is not "
            "MONOCHROME1 or MONOCHROME2",
        )
    frames = integer(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise ImageRejected("multi_frame", f"Number of Frames (0028,0008) is {frames}")
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if rows < 1 or columns < 1:
        raise ImageRejected("decode_error", f"Rows x Columns is {rows} x {columns}")
    if rows * columns > max_pixels:
        raise ImageRejected("too_large", f"{rows} x {columns} pixels, --max_pixels is {max_pixels}")
    allocated = integer(dataset, "BitsAllocated")
    stored = integer(dataset, "BitsStored", allocated)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise ImageRejected(
            "unsupported_bit_depth", f"Bits Allocated {allocated}, Bits Stored {stored}"
        )
    if integer(dataset, "PixelRepresentation", 0) not in (0, 1):
        raise ImageRejected("decode_error", "Pixel Representation (0028,0103) is neither 0 nor 1")
    decoders.require_decoder(transfer_syntax)
    if is_whole and not dataset.PixelData:
        raise ImageRejected("truncated", "Pixel Data (7FE0,0010) is empty")
    # The decoders read these from the data set; absent ones get the value that was checked.
    dataset.BitsStored, dataset.SamplesPerPixel = stored, 1
    dataset.PixelRepresentation = integer(dataset, "PixelRepresentation", 0)


def _decode(
    dataset: Dataset,
    transfer_syntax: str,
    rendering: str,
    steps: list[str],
    cover: tuple[int, int] | None,
) -> np.ndarray:
    """Returns stored values; in `dicom` mode also where they do not start at the lowest bit."""
    bits, high_bit = dataset.BitsStored, integer(dataset, "HighBit", dataset.BitsStored - 1)
    # PS3.5 8.1.1 has retired other High Bits, but files have them. Compressed streams hold the
    # samples themselves, without their place in the cell; RLE holds whole cells.
    has_cells = transfer_syntax in decoders.NATIVE or transfer_syntax == RLELossless
    if rendering != "dicom" or not has_cells or not bits <= high_bit < dataset.BitsAllocated:
        stored = decoders.decode(dataset, transfer_syntax, cover)
        if stored.shape != (dataset.Rows, dataset.Columns):
            steps.append(f"decoded at {stored.shape[0]} x {stored.shape[1]}")
        return stored
    low_bits = high_bit + 1 - bits
    steps.append(f"moved down by {low_bits} bits (High Bit {high_bit}, Bits Stored {bits})")
    try:
        dataset.BitsStored = bits + low_bits
        return decoders.decode(dataset, transfer_syntax) >> low_bits
    finally:
        dataset.BitsStored = bits


def _warnings(
    dataset: Dataset, transfer_syntax: str, attributes: RenderingAttributes, rendering: str
) -> list[str]:
    view, modality = text(dataset, "ViewPosition"), text(dataset, "Modality")
    original = rendering == "cxr_foundation"
    window = attributes.window
    found = {
        "voi_lut_ignored": original and not is_absent(dataset, "VOILUTSequence"),
        "presentation_inverse_ignored": (
            original and attributes.inverse and not attributes.monochrome1
        ),
        "voi_function_ignored": (
            original and window is not None and attributes.voi_function not in ("", "LINEAR")
        ),
        "multiple_windows": (
            window is not None and window.centre_is_listed and attributes.voi_lut is None
        ),
        "missing_view_position": not view,
        "not_frontal": bool(view) and view not in FRONTAL_VIEWS,
        "lossy_compressed": (
            text(dataset, "LossyImageCompression") == "01" or transfer_syntax in decoders.LOSSY
        ),
        "not_a_radiograph": modality is not None and modality not in RADIOGRAPH_MODALITIES,
    }
    return [code for code, is_so in found.items() if is_so]
