"""A DICOM file, or its bytes, to a `Radiograph`: read, check, decode, render.

Nothing is decoded before the header has been judged, and no message ever holds the value of a text
element: those may identify a patient.
"""

from __future__ import annotations

from cxr_embed import safe_pydicom  # must come before pydicom

# isort: split

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pydicom.config
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from cxr_embed import decoders, file_types
from cxr_embed.dicom_file import read_dicom
from cxr_embed.dicom_header import integer, is_absent, rendering_attributes_of, text
from cxr_embed.errors import ImageRejected, ImageSkipped
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, RENDERINGS, Radiograph
from cxr_embed.rendering import render
from cxr_embed.rendering_attributes import RenderingAttributes

# pydicom's warnings about odd values quote the value. It stays silent; what cannot be used is
# rejected here with a reason of our own.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# Inflated data may hold two bytes for each pixel, and this many for long private elements and such.
HEADER_ALLOWANCE = 64 << 20

RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "RF", "XA", "MG", "PX", "OT")
FRONTAL_VIEWS = ("AP", "PA")

# The only elements ever looked at. All others, names and dates among them, are not even kept.
KEYWORDS = (
    "Modality", "ViewPosition", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "VOILUTSequence", "PresentationLUTShape", "LossyImageCompression", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
_TAGS = [tag_for_keyword(keyword) for keyword in KEYWORDS]

Source: TypeAlias = str | Path | bytes | BinaryIO | Dataset


@safe_pydicom.muted()
def read_radiograph(
    source: Source,
    rendering: str = "cxr_foundation",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    views: str = "all",
) -> Radiograph:
    """Reads and renders one single-frame greyscale DICOM image.

    Args:
        source: a path, the file's bytes, a binary file, or a pydicom Dataset. Files may be
            gzip-compressed.
        rendering: `cxr_foundation` (what the published embeddings were made from) or `dicom`
            (PS3.3's greyscale pipeline).
        max_pixels: images with more pixels are rejected from their header.
        views: `all`, or `frontal` to raise `ImageSkipped` where View Position is there and is
            neither AP nor PA.

    Returns:
        The radiograph: uint8 or uint16 pixels of shape (rows, columns), bright = dense.

    Raises:
        ImageRejected: the image will not be rendered; its `reason` says why.
        ImageSkipped: only with `views="frontal"`.
        OSError: `source` is a path that cannot be read.
        ValueError: `rendering` is unknown.
    """
    if rendering not in RENDERINGS:
        raise ValueError(f"rendering {rendering!r}: pass one of {', '.join(RENDERINGS)}")
    steps: list[str] = []
    try:
        dataset, transfer_syntax = _open(source, max_pixels)
        view = text(dataset, "ViewPosition")
        if views == "frontal" and view is not None and view not in FRONTAL_VIEWS:
            raise ImageSkipped("not_frontal", "View Position (0018,5101) is neither AP nor PA")
        _check_header(dataset, transfer_syntax, max_pixels)
        attributes = rendering_attributes_of(dataset, rendering)
        stored = _decode(dataset, transfer_syntax, rendering, steps)
        return Radiograph(
            pixels=render(stored, attributes, rendering, steps),
            warnings=_warnings(dataset, transfer_syntax, attributes, rendering),
            view_position=view,
            steps=steps,
        )
    except ImageRejected as rejected:
        rejected.steps = tuple(steps)
        raise
    except (ImageSkipped, OSError):
        raise
    except MemoryError as error:
        raise ImageRejected("too_large", "not enough memory to decode it") from error
    except Exception as error:  # the file decides what can go wrong: no damage may end the run
        raise _damaged(error) from None


@safe_pydicom.muted()
def read_header(
    source: Source, keywords: Sequence[str] = KEYWORDS, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Dataset, str]:
    """Reads some elements of a DICOM file for people who look into it; nothing is judged.

    Args:
        source: as `read_radiograph` takes it.
        keywords: the elements to keep; by default those that decide the pixels.
        max_pixels: bounds what compressed files may inflate to.

    Returns:
        The elements that are there, and the transfer syntax UID.

    Raises:
        ImageRejected: not readable as DICOM.
        OSError: `source` is a path that cannot be read.
    """
    try:
        return _open(source, max_pixels, [tag_for_keyword(keyword) for keyword in keywords])
    except (ImageRejected, OSError):
        raise
    except Exception as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> ImageRejected:
    # Only the type is told, here and below, and no cause is chained: messages of pydicom's quote.
    return ImageRejected("decode_error", f"damaged DICOM structure ({type(error).__name__})")


def _open(source: Source, max_pixels: int, tags: list[Any] = _TAGS) -> tuple[Dataset, str]:
    """Returns the data set and its transfer syntax UID."""
    if isinstance(source, Dataset):
        meta = getattr(source, "file_meta", None)
        syntax = str(getattr(meta, "TransferSyntaxUID", "") or ExplicitVRLittleEndian)
        return _excerpt(source, tags), syntax
    data = _read_bytes(source)
    limit = 2 * max_pixels + HEADER_ALLOWANCE
    if file_types.sniff(data) == "gzip":
        data = file_types.gunzip(data, limit)
    if not data:
        raise ImageRejected("not_an_image", "the file is empty")
    if file_types.sniff(data) != "dicom":
        raise ImageRejected("not_an_image", "neither a DICOM preamble nor a DICOM data set")
    return read_dicom(data, tags, limit)


def _excerpt(dataset: Dataset, tags: list[Any]) -> Dataset:
    """Returns a data set of some elements, so that the caller's own is never written to."""
    excerpt = Dataset({tag: dataset.get_item(tag) for tag in tags if tag in dataset})
    excerpt.set_original_encoding(*dataset.original_encoding)
    if hasattr(dataset, "file_meta"):
        excerpt.file_meta = dataset.file_meta
    return excerpt


def _read_bytes(source: str | Path | bytes | BinaryIO) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | Path):
        return Path(source).read_bytes()
    return source.read()


def _check_header(dataset: Dataset, transfer_syntax: str, max_pixels: int) -> None:
    """Judges the header, so that no decoder sees what cannot become a radiograph."""
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
    if not dataset.PixelData:
        raise ImageRejected("truncated", "Pixel Data (7FE0,0010) is empty")
    # The decoders read these from the data set; absent ones get the value that was judged.
    dataset.BitsStored, dataset.SamplesPerPixel = stored, 1
    dataset.PixelRepresentation = integer(dataset, "PixelRepresentation", 0)


def _decode(dataset: Dataset, transfer_syntax: str, rendering: str, steps: list[str]) -> np.ndarray:
    """Returns stored values; in `dicom` mode also where they do not start at the lowest bit."""
    bits, high_bit = dataset.BitsStored, integer(dataset, "HighBit", dataset.BitsStored - 1)
    # PS3.5 8.1.1 has retired other High Bits, but files have them. Compressed streams hold the
    # samples themselves, wherever they once were; RLE holds whole cells.
    has_cells = transfer_syntax in decoders.NATIVE or transfer_syntax == RLELossless
    if rendering != "dicom" or not has_cells or not bits <= high_bit < dataset.BitsAllocated:
        return decoders.decode(dataset, transfer_syntax)
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
