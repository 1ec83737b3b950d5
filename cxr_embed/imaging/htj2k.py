"""Decodes HTJ2K with OpenJPH in a third of OpenJPEG's time; `benchmarks/decoders.py` compares.

OpenJPH comes with `imagecodecs`, which pydicom has no plugin for. Streams whose wavelet is not that
of integers are left to OpenJPEG: there, decoders differ by one grey level.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from cxr_embed.imaging.codestream import NotForThisDecoder
from cxr_embed.imaging.jpeg2000_header import SOT, read_samples

_EOC = b"\xff\xd9"


def decode_htj2k(frame: bytes, options: dict[str, Any]) -> np.ndarray:
    """Decodes one component of reversible HTJ2K (ITU-T T.814).

    Args:
        frame: the stream.
        options: pydicom's: rows, columns, bits_allocated, pixel_representation.

    Returns:
        Stored values of shape (rows, columns), int or uint of Bits Allocated.

    Raises:
        NotForThisDecoder: the stream is not reversible, not whole, damaged, or its sign or depth is
            not the header's.
        RuntimeError: the stream is damaged.
    """
    import imagecodecs

    samples = read_samples(frame)
    if (
        samples is None
        or not samples.is_reversible
        or not samples.agree_with(options)
        or not _has_all_tiles(frame, samples.tiles_at)
    ):
        raise NotForThisDecoder
    with _unraised() as errors:
        array: np.ndarray = imagecodecs.htj2k_decode(frame[samples.start :])
    if errors or array.shape != (options["rows"], options["columns"]):
        raise NotForThisDecoder
    kind = "i" if samples.is_signed else "u"
    return array.astype(f"<{kind}{options['bits_allocated'] // 8}", copy=False)


def _has_all_tiles(frame: bytes, position: int) -> bool:
    """Whether the tiles' lengths (T.800 A.4.2) lead to the end of the stream.

    OpenJPH takes missing bytes for blocks of zeros.
    """
    while frame[position : position + 2] == SOT.to_bytes(2, "big") and position + 10 <= len(frame):
        (length,) = struct.unpack_from(">I", frame, position + 6)
        if length == 0:  # the last tile, up to the end
            return False
        position += length
    return frame[position : position + 2] == _EOC


@contextlib.contextmanager
def _unraised() -> Iterator[list[sys.UnraisableHookArgs]]:
    """Collects the errors that imagecodecs prints, and does not raise, where a block is damaged."""
    errors: list[sys.UnraisableHookArgs] = []
    before, sys.unraisablehook = sys.unraisablehook, errors.append
    try:
        yield errors
    finally:
        sys.unraisablehook = before
