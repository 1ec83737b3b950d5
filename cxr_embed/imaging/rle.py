"""Decodes RLE in 0.6 of pylibjpeg-rle's time; `benchmarks/decoders.py` compares them.

The decoder is imagecodecs', which pydicom has no plugin for. It runs in this process, unlike the
others: it has a hundred lines, which check every read and write, and takes memory for the pixels
alone. A process of its own would double the time.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from cxr_embed.file_types import Buffer


def decode_rle(frame: Buffer, options: dict[str, Any]) -> np.ndarray | None:
    """Decodes a frame whose header `codestream.check_stream` has accepted.

    Args:
        frame: compressed (PS3.5 G).
        options: pydicom's: rows, columns, bits_allocated, pixel_representation.

    Returns:
        Stored values of shape (rows, columns), int or uint of Bits Allocated, read-only; None where
        a segment gives too few or too many bytes.
    """
    import imagecodecs

    rows, columns, size = options["rows"], options["columns"], options["bits_allocated"] // 8
    kind = "i" if options["pixel_representation"] == 1 else "u"
    length = rows * columns * size
    try:
        pixels = imagecodecs.dicomrle_decode(cast(bytes, frame), f"<u{size}", out=length)
    except (ValueError, RuntimeError):
        return None
    if len(pixels) != length:
        return None
    return np.frombuffer(pixels, f"<{kind}{size}").reshape(rows, columns)
