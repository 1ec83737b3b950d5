"""RLE with imagecodecs' PackBits; pydicom's own decoder is the referee."""

from __future__ import annotations

import random

import numpy as np
import pytest
from builders import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoders
from cxr_embed.imaging.codestream import check_stream, only_frame
from cxr_embed.imaging.rle import decode_rle


def picture(kind: str, rows: int, columns: int, width: int = 3) -> np.ndarray:
    """Runs of equal values, `width` long, over the whole range."""
    limits = np.iinfo(kind)
    values = np.random.default_rng(0).integers(
        limits.min, limits.max, (rows, -(-columns // width)), kind, endpoint=True
    )
    return np.ascontiguousarray(values.repeat(width, axis=1)[:, :columns])


def encode(pixels: np.ndarray) -> bytes:
    dataset = make_dataset(pixels)
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    return bytes(only_frame(dataset.PixelData))


def options(pixels: np.ndarray) -> dict[str, object]:
    return decoders._options(make_dataset(pixels, PixelData=None))


@given(
    kind=st.sampled_from(["u1", "i1", "u2", "i2"]),
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    width=st.integers(1, 200),
)
@settings(max_examples=60, deadline=None)
def test_every_size_and_type(kind: str, rows: int, columns: int, width: int) -> None:
    pixels = picture(kind, rows, columns, width)
    decoded = decode_rle(encode(pixels), options(pixels))
    assert decoded is not None
    assert decoded.dtype == pixels.dtype
    np.testing.assert_array_equal(decoded, pixels)


def test_four_bytes_a_value() -> None:
    planes = [bytes([3, *part]) for part in (b"\1\2\3\4", b"\0\0\0\0", b"\0\1\0\1", b"\5\6\7\7")]
    header = np.zeros(16, "<u4")
    header[:5] = [4, 64, 69, 74, 79]
    shape = np.zeros((2, 2), np.uint32)
    found = decode_rle(header.tobytes() + b"".join(planes), options(shape))
    assert found is not None
    assert found.tolist() == [[0x01000005, 0x02000106], [0x03000007, 0x04000107]]


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_too_few_bytes(kept: float) -> None:
    pixels = picture("u2", 40, 60)
    stream = encode(pixels)
    assert decode_rle(stream[: int(kept * len(stream))], options(pixels)) is None


def test_what_it_makes_of_damage_is_what_pydicom_makes_of_it() -> None:
    chosen = random.Random(0)
    pixels = picture("u2", 30, 50)
    stream = encode(pixels)
    decoded = 0
    for _ in range(400):
        damaged = bytearray(stream)
        damaged[chosen.randrange(64, len(stream))] ^= 1 << chosen.randrange(8)
        frame = bytes(damaged[: chosen.choice([len(stream), len(stream) - 9])])
        try:
            check_stream(memoryview(frame), RLELossless, *pixels.shape, 2)
        except ImageRejected:
            continue
        found = decode_rle(frame, options(pixels))
        if found is None:
            continue
        decoded += 1
        expected, _ = get_decoder(RLELossless).as_array(
            encapsulate([frame]), raw=True, decoding_plugin="pydicom", **options(pixels)
        )
        np.testing.assert_array_equal(found, expected)
    assert decoded > 100
