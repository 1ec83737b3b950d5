"""Reads an image file of any supported type: its bytes become a `Radiograph`.

DICOM is read by `dicom`, PNG and JPEG are read here.
"""

from __future__ import annotations

from cxr_embed.imaging import safe_pydicom  # noqa: F401  must come before pydicom

# isort: split

import struct

import numpy as np
from pydicom import Dataset

from cxr_embed import file_types
from cxr_embed.errors import ImageRejected
from cxr_embed.file_types import PREFIX_BYTES, Buffer
from cxr_embed.imaging import decoder_process, dicom
from cxr_embed.imaging.codestream import read_stream_size
from cxr_embed.imaging.reading_errors import while_parsing, while_rendering
from cxr_embed.imaging.rendering import look_up, require_rendering
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph

# The most that a pixel can take in a file, in bytes: PNG has up to 16-bit RGBA.
_BYTES_A_PIXEL = {"png": 8, "jpeg": 4}


def read_image(
    data: Buffer | Dataset,
    file_type: str = "auto",
    rendering: str = "cxr_foundation",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    views: str = "all",
    cover: tuple[int, int] | None = None,
) -> Radiograph:
    """Reads and renders one image file of any supported type.

    Args:
        data: the whole file, gzip-compressed or not; or a pydicom Dataset.
        file_type: `auto` to judge by the content, or `dicom`, `png`, `jpeg` to accept only that.
        rendering: a key of `RENDERINGS`.
        max_pixels: images with more pixels are rejected from their header.
        views: `all`, or `frontal`.
        cover: DICOM in JPEG 2000 and HTJ2K is decoded at the lowest resolution with at least so
            many rows and columns, if its header has a window and neither look-up tables nor
            padding. This takes a fraction of the time and changes pixels. None decodes all whole.

    Returns:
        The radiograph. Its `source` is not set.

    Raises:
        ImageRejected: the image is not rendered. With the reason `unexpected_error`, `__cause__`
            is the exception.
        ImageSkipped: only with `views="frontal"`.
        MachineFault: the machine lacks something that any image needs.
        MemoryError: memory ran out.
        ValueError: `rendering` is unknown.
    """
    require_rendering(rendering)
    if isinstance(data, Dataset):
        return dicom.read_dicom_image(
            data, rendering, max_pixels=max_pixels, views=views, cover=cover
        )
    found = file_types.sniff(data)
    if found == "gzip":
        # The start is judged first, as in `admit`: what is no radiograph is not inflated whole.
        limit = _limit_of_gzip(data[:PREFIX_BYTES], file_type, max_pixels, views)
        data = file_types.gunzip(data, limit)
        found = file_types.sniff(data)
    _check_type(data, found, file_type)
    if found in ("png", "jpeg"):
        return _read_picture(data, found, max_pixels)
    return dicom.read_dicom_image(data, rendering, max_pixels=max_pixels, views=views, cover=cover)


def admit(
    prefix: Buffer,
    file_type: str = "auto",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    views: str = "all",
) -> int:
    """Judges a file by its first bytes, before the rest is read.

    Args:
        prefix: the first `PREFIX_BYTES` of the file as it is stored; a shorter file whole.
        file_type: as in `read_image`.
        max_pixels: likewise.
        views: likewise.

    Returns:
        The largest size in bytes that the file can have and be a radiograph. A larger file need
        not be read: it is `too_large`.

    Raises:
        ImageRejected: `read_image` rejects the whole file for the same reason, with any bytes
            after `prefix`.
        ImageSkipped: likewise; only with `views="frontal"`.
    """
    found = file_types.sniff(prefix)
    if found == "gzip":
        return _limit_of_gzip(prefix, file_type, max_pixels, views)
    return _limit(prefix, found, file_type, max_pixels, views)


def too_large(limit: int) -> ImageRejected:
    """Returns the rejection of a file that is larger than `admit` returned."""
    return ImageRejected(
        "too_large", f"the file has more than {limit} bytes, which no image of its size needs"
    )


def _limit(start: Buffer, found: str | None, file_type: str, max_pixels: int, views: str) -> int:
    """Does what `admit` does, for a file or contents of a gzip file of type `found`."""
    _check_type(start, found, file_type)
    if found not in ("png", "jpeg"):
        return dicom.largest_size(start, max_pixels=max_pixels, views=views)
    pixels = max_pixels
    with while_parsing(f"{found.upper()} header"):
        size = _picture_size(start, found)
        if size is not None:
            _check_size(*size, max_pixels)
            pixels = size[0] * size[1]
    return _BYTES_A_PIXEL[found] * pixels + dicom.HEADER_ALLOWANCE


def _limit_of_gzip(prefix: Buffer, file_type: str, max_pixels: int, views: str) -> int:
    """Does what `admit` does for a gzip file, which hardly grows by being compressed.

    The limit holds for its contents, too.
    """
    start, is_enough = file_types.gunzip_start(prefix, PREFIX_BYTES)
    if is_enough:
        return _limit(start, file_types.sniff(start), file_type, max_pixels, views)
    return max(_BYTES_A_PIXEL.values()) * max_pixels + dicom.HEADER_ALLOWANCE


def _check_type(start: Buffer, found: str | None, file_type: str) -> None:
    """Rejects what is not of the type that is asked for, or of none."""
    if file_type not in ("auto", found):
        raise ImageRejected("not_an_image", f"not a {file_type.upper()} file")
    if found not in ("dicom", "png", "jpeg"):
        detail = "neither DICOM nor PNG nor JPEG" if len(start) else "the file is empty"
        raise ImageRejected("not_an_image", detail)


def _read_picture(data: Buffer, file_type: str, max_pixels: int) -> Radiograph:
    """Reads PNG or JPEG as grey: 8-bit as it is, 16-bit stretched to the full range."""
    with while_parsing(f"{file_type.upper()} file"):
        size = _picture_size(data, file_type)
        if size is None:
            raise ImageRejected("decode_error", "a damaged JPEG header")
        _check_size(*size, max_pixels)
        pixels, steps = decoder_process.decode_picture(file_type, data, *size)
    with while_rendering():
        return _render_picture(pixels, steps)


def _render_picture(pixels: np.ndarray, steps: list[str]) -> Radiograph:
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
        pixels = pixels.copy()  # the decoding process can use its memory again
        steps.append("8-bit, not stretched")
    return Radiograph(pixels, steps=steps)


def _picture_size(data: Buffer, file_type: str) -> tuple[int, int] | None:
    """Returns rows and columns of the header, before EXIF Orientation; None without a header."""
    if file_type == "png":
        if data[12:16] != b"IHDR":
            raise ImageRejected("not_an_image", "a damaged PNG header")
        columns, rows = struct.unpack(">II", bytes(data[16:24]).ljust(8, b"\0"))
        return rows, columns
    size = read_stream_size(memoryview(data))
    return None if size is None else (size.rows, size.columns)


def _check_size(rows: int, columns: int, max_pixels: int) -> None:
    if rows < 1 or columns < 1:
        raise ImageRejected("decode_error", f"a picture of {rows} x {columns} pixels")
    if rows * columns > max_pixels:
        raise ImageRejected("too_large", f"{rows} x {columns} pixels, --max_pixels is {max_pixels}")
