"""Decodes lossless JPEG in a third of GDCM's time; `benchmarks/decoders.py` compares them.

liblj92 comes with `imagecodecs`, which pydicom has no plugin for. It knows neither restart
intervals nor a point transform, so that streams with either are left to GDCM.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cxr_embed.imaging.codestream import NotForThisDecoder

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF3, _DRI, _SOS = 0xC3, 0xDD, 0xDA


def decode_lossless_jpeg(frame: bytes, options: dict[str, Any]) -> np.ndarray:
    """Decodes one component of lossless JPEG (ITU-T T.81 H), any predictor.

    Args:
        frame: the stream.
        options: pydicom's: rows, columns, bits_allocated, pixel_representation.

    Returns:
        Stored values of shape (rows, columns), int or uint of Bits Allocated.

    Raises:
        NotForThisDecoder: restart intervals, a point transform, a stream without its end, or a
            precision that Bits Allocated does not name.
        RuntimeError: the stream is damaged.
    """
    import imagecodecs

    if not _is_plain(frame):
        raise NotForThisDecoder
    array: np.ndarray = imagecodecs.ljpeg_decode(frame)
    size = options["bits_allocated"] // 8
    if array.shape != (options["rows"], options["columns"]) or array.dtype.itemsize != size:
        raise NotForThisDecoder
    return array.view(f"{'i' if options['pixel_representation'] == 1 else 'u'}{size}")


def _is_plain(frame: bytes) -> bool:
    if not frame.startswith(_SOI) or _EOI not in frame[-64:]:
        return False
    position = 2
    is_lossless = False
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker == _SOS:  # its last byte ends in the point transform (B.2.3)
            last = frame[position + 1 + length : position + 2 + length]
            return is_lossless and len(last) == 1 and last[0] & 15 == 0
        if marker == _DRI:
            return False
        is_lossless |= marker == _SOF3
        position += 2 + max(2, length)
    return False
