"""Decodes JPEG 2000 and HTJ2K at a lower resolution, for `--decode_scale=auto`.

A wavelet stream holds an image of half the size, of a quarter and so on, and decoding one of these
takes a fraction of the time. Pillow decodes them, with the same OpenJPEG as the pinned decoder;
that one's Python package has no way to ask for a lower resolution.

A lower resolution is a low-pass filtered image, which can exceed the values of the whole one by a
few per cent of the contrast. It is used only where the header fixes the range of values.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from cxr_embed.imaging.jpeg2000_header import read_samples
from cxr_embed.imaging.rendering_attributes import RenderingAttributes


def has_fixed_range(attributes: RenderingAttributes) -> bool:
    """Whether an image of these attributes may be rendered from a lower resolution.

    A window fixes the range of values. Tables and padding are about single values, which averages
    of neighbours are not.
    """
    is_plain = attributes.modality_lut is None and attributes.voi_lut is None
    return attributes.window is not None and is_plain and attributes.padding is None


def halvings(frame: bytes | memoryview, options: dict[str, Any], cover: tuple[int, int]) -> int:
    """Returns how often an image can be halved and still have `cover` rows and columns.

    Args:
        frame: a JPEG 2000 or HTJ2K stream.
        options: pydicom's of the whole image: rows, columns, bits_allocated, pixel_representation.
        cover: the least rows and columns.

    Returns:
        The number; 0 where header and stream disagree on the samples, which only the decoder of
        whole images sorts out.
    """
    samples = read_samples(frame)
    if samples is None or not samples.agree_with(options):
        return 0
    count = 0
    while count < samples.decompositions and all(
        reduced(options[name], count + 1) >= least
        for name, least in zip(("rows", "columns"), cover, strict=True)
    ):
        count += 1
    return count


def reduced(length: int, count: int) -> int:
    """Returns rows or columns after `count` halvings (ITU-T T.800 B.5), for an image at 0, 0."""
    return -(-length // 2**count)


def decode_reduced(frame: bytes, options: dict[str, Any], count: int) -> np.ndarray | None:
    """Decodes an image that is halved `count` times.

    Args:
        frame: a stream that `halvings` has accepted.
        options: pydicom's of the whole image, as in `halvings`.
        count: of halvings.

    Returns:
        Stored values, int or uint of Bits Allocated, of shape (rows, columns), both `reduced`; None
        where the stream is not what `halvings` accepts.

    Raises:
        OSError: the stream is damaged.
    """
    from PIL import Image

    samples = read_samples(frame)
    if samples is None:
        return None
    image = Image.open(io.BytesIO(frame[samples.start :]), formats=["JPEG2000"])
    if image.mode not in ("L", "I;16"):
        return None
    rows, columns = reduced(options["rows"], count), reduced(options["columns"], count)
    # Pillow rounds a size that is halved to the nearest number, and OpenJPEG rounds it up.
    image._size = (columns << count, rows << count)
    setattr(image, "reduce", count)  # noqa: B010  in this format no method, but a setting
    array = np.asarray(image)
    if array.shape != (rows, columns):
        return None
    # Pillow moves samples to the top of their 8 or 16 bits, and makes them unsigned.
    array = array >> (8 * array.dtype.itemsize - samples.bits)
    size = options["bits_allocated"] // 8
    if samples.is_signed:
        return (array.astype(np.int32) - (1 << (samples.bits - 1))).astype(f"<i{size}")
    return array.astype(f"<u{size}")
