"""Encodes a radiograph as a PNG in a serialized `tf.train.Example`, without TensorFlow.

This is the input of CXR Foundation's models: `image/encoded` is a grey PNG of 8 or 16 bits, and
`image/format` is `png`. Formats: `example.proto`, and the PNG specification (RFC 2083).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cxr_embed.models.resizing import resize
from cxr_embed.radiograph import Radiograph
from cxr_embed.records import delimited

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NO_FILTER, _FILTER_UP = 0, 2


@dataclass(frozen=True)
class ExampleInput:
    """An input of serialized examples.

    Attributes:
        compression: zlib level of the PNG. 0 stores the pixels and is fastest for a model in this
            process; 6 is for a hosted model.
        size: (rows, columns) to resize to; None sends each radiograph at its own size.
        bits: 8 to send only the upper 8 bits; None sends all bits.
    """

    is_open: ClassVar[bool] = False  # its radiographs go in as PNGs, which stack at any size

    compression: int = 0
    size: tuple[int, int] | None = None
    bits: int | None = None


def fit_example(radiograph: Radiograph, wanted: ExampleInput) -> bytes:
    """Returns a radiograph as a serialized example."""
    pixels = radiograph.pixels
    if wanted.size is not None:
        pixels = np.rint(resize(pixels, *wanted.size)).astype(pixels.dtype)
    if wanted.bits == 8:
        pixels = upper_8_bits(pixels)
    return encode_png_example(encode_png(pixels, wanted.compression))


def upper_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Returns the upper 8 bits as uint8, as TensorFlow's decoder reads a 16-bit PNG as uint8."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def encode_png_example(png: bytes) -> bytes:
    """Serializes a `tf.train.Example` with a PNG; its features are sorted by name."""
    # Example.features = 1, Features.feature = 1 (map: key = 1, value = 2), Feature.bytes_list = 1,
    # BytesList.value = 1.
    features = b"".join(
        delimited(1, delimited(1, key) + delimited(2, delimited(1, delimited(1, value))))
        for key, value in ((b"image/encoded", png), (b"image/format", b"png"))
    )
    return delimited(1, features)


def encode_png(pixels: np.ndarray, compression: int) -> bytes:
    """Encodes grey pixels as a PNG.

    Args:
        pixels: uint8 or uint16 of shape (rows, columns).
        compression: zlib level, 0 to 9.
    """
    rows, columns = pixels.shape
    line = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8)
    filtered = np.empty((rows, 1 + line.shape[1]), np.uint8)
    filtered[0, 1:] = line[0]
    if compression:
        # Differences from the row above. On radiographs the result is as small as with the best of
        # all five filters for each row, and needs only one subtraction.
        filtered[:, 0] = _FILTER_UP
        np.subtract(line[1:], line[:-1], out=filtered[1:, 1:])
    else:
        filtered[:, 0] = _NO_FILTER
        filtered[1:, 1:] = line[1:]
    # Colour type 0 (grey), compression method 0, filter method 0, not interlaced.
    header = struct.pack(">IIBBBBB", columns, rows, 8 * pixels.dtype.itemsize, 0, 0, 0, 0)
    parts = (
        _PNG_SIGNATURE,
        *_chunk(b"IHDR", header),
        *_chunk(b"IDAT", zlib.compress(filtered.data, compression)),
        *_chunk(b"IEND", b""),
    )
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    crc = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", crc)
