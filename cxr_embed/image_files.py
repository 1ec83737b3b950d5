"""A file of any supported type to a `Radiograph`; PNG and JPEG are read here, DICOM next door."""

from __future__ import annotations

import struct

import numpy as np

from cxr_embed import decoder_process, dicom, file_types
from cxr_embed.codestream import read_stream_size
from cxr_embed.errors import ImageRejected
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph
from cxr_embed.rendering import look_up


def read_image(
    data: bytes,
    file_type: str = "auto",
    rendering: str = "cxr_foundation",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    views: str = "all",
) -> Radiograph:
    """Reads and renders one image file of any supported type.

    Args:
        data: the whole file, gzip-compressed or not.
        file_type: `auto` to judge by the content, or `dicom`, `png`, `jpeg` to accept only that.
        rendering: for DICOM, as `dicom.read_radiograph` says.
        max_pixels: larger images are rejected from their header.
        views: for DICOM, as `dicom.read_radiograph` says.

    Returns:
        The radiograph.

    Raises:
        ImageRejected: the image will not be rendered.
        ImageSkipped: only with `views="frontal"`.
    """
    found = file_types.sniff(data)
    if found == "gzip":
        data = file_types.gunzip(data, 2 * max_pixels + dicom.HEADER_ALLOWANCE)
        found = file_types.sniff(data)
    if file_type not in ("auto", found):
        raise ImageRejected("not_an_image", f"not a {file_type.upper()} file")
    if found in ("png", "jpeg"):
        return _read_picture(data, found, max_pixels)
    return dicom.read_radiograph(data, rendering, max_pixels=max_pixels, views=views)


def _read_picture(data: bytes, file_type: str, max_pixels: int) -> Radiograph:
    """PNG or JPEG to grey: 8-bit ones as they are, 16-bit ones stretched to the full range."""
    rows, columns = _picture_size(data, file_type)
    if rows * columns > max_pixels:
        raise ImageRejected("too_large", f"{rows} x {columns} pixels, --max_pixels is {max_pixels}")
    pixels, steps = decoder_process.decode_picture(file_type, data, rows, columns)
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise ImageRejected("constant_image", "one value in all pixels")
    steps.append(f"grey values {low}..{high}")
    if pixels.dtype == np.uint16:
        values = np.arange(low, high + 1)
        stretched = np.interp(values, (low, high), (0, 65535)).astype(np.uint16)
        pixels = look_up(pixels, values, stretched)
        steps.append(f"stretched from {low}..{high} to 0..65535")
    else:
        pixels = pixels.copy()  # the decoder gets its memory back
        steps.append("8-bit, not stretched")
    return Radiograph(pixels, steps=steps)


def _picture_size(data: bytes, file_type: str) -> tuple[int, int]:
    """Returns rows and columns as the header says, EXIF Orientation left aside."""
    if file_type == "png":
        if data[12:16] != b"IHDR":
            raise ImageRejected("not_an_image", "a damaged PNG header")
        columns, rows = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
    else:
        size = read_stream_size(memoryview(data))
        if size is None:
            raise ImageRejected("decode_error", "a damaged JPEG header")
        rows, columns = size.rows, size.columns
    if rows < 1 or columns < 1:
        raise ImageRejected("decode_error", f"a picture of {rows} x {columns} pixels")
    return rows, columns


def admit(prefix, file_type="auto", max_pixels=DEFAULT_MAX_PIXELS):
    return 1 << 40
