"""Lossless JPEG of all kinds that ITU-T T.81 allows for one component; GDCM is the referee."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLossless

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoders, lossless_jpeg
from cxr_embed.imaging.codestream import NotForThisDecoder


def encode(
    pixels: np.ndarray, bits: int, predictor: int = 1, transform: int = 0, restart_rows: int = 0
) -> bytes:
    """Returns a stream as T.81 H.1 describes it, with one Huffman table of 17 5-bit codes."""
    rows, columns = pixels.shape
    values = pixels.astype(np.int64) >> transform
    stream = bytearray(b"\xff\xd8")
    if restart_rows:
        stream += b"\xff\xdd\x00\x04" + (restart_rows * columns).to_bytes(2, "big")
    stream += b"\xff\xc3\x00\x0b" + bytes([bits, *rows.to_bytes(2, "big")])
    stream += columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    stream += b"\xff\xc4\x00\x24\x00" + bytes([0] * 4 + [17] + [0] * 11) + bytes(range(17))
    stream += b"\xff\xda\x00\x08\x01\x01\x00" + bytes([predictor, 0, transform])
    code = ""
    for row in range(rows):
        starts = row == 0 or (restart_rows and row % restart_rows == 0)
        if starts and row:
            stream += _stuffed(code) + bytes([0xFF, 0xD0 + (row // restart_rows - 1) % 8])
            code = ""
        for column in range(columns):
            left, above = values[row, column - 1], values[row - 1, column]
            corner = values[row - 1, column - 1]
            if starts:
                guess = left if column else 1 << (bits - transform - 1)
            elif not column:
                guess = above
            else:
                guess = [
                    left, above, corner, left + above - corner, left + ((above - corner) >> 1),
                    above + ((left - corner) >> 1), (left + above) >> 1,
                ][predictor - 1]  # fmt: skip
            difference = (int(values[row, column] - guess) + 32767) % 65536 - 32767
            size = abs(difference).bit_length()
            code += f"{size:05b}"
            if 0 < size < 16:
                low = difference if difference > 0 else difference + (1 << size) - 1
                code += f"{low:0{size}b}"
    return bytes(stream + _stuffed(code) + b"\xff\xd9")


def _stuffed(code: str) -> bytes:
    code += "1" * (-len(code) % 8)
    packed = bytes(int(code[at : at + 8], 2) for at in range(0, len(code), 8))
    return packed.replace(b"\xff", b"\xff\x00")


def options(pixels: np.ndarray, bits: int) -> dict[str, object]:
    dataset = make_dataset(pixels, BitsStored=bits, PixelData=None)
    return decoders._options(dataset)


def gdcms(stream: bytes, pixels: np.ndarray, bits: int) -> np.ndarray:
    array, _ = get_decoder(JPEGLossless).as_array(
        encapsulate([stream]), raw=True, decoding_plugin="gdcm", **options(pixels, bits)
    )
    return array


def picture(bits: int, seed: int = 0) -> np.ndarray:
    kind = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 1 << bits, (13, 11)).astype(kind)


@given(
    bits=st.integers(2, 16), predictor=st.integers(1, 7), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_precision_and_predictor(bits: int, predictor: int, seed: int) -> None:
    pixels = picture(bits, seed)
    stream = encode(pixels, bits, predictor)
    decoded = lossless_jpeg.decode_lossless_jpeg(stream, options(pixels, bits))
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_it_equals_gdcm(bits: int) -> None:
    pixels = picture(bits)
    for predictor in range(1, 8):
        stream = encode(pixels, bits, predictor)
        ours = lossless_jpeg.decode_lossless_jpeg(stream, options(pixels, bits))
        np.testing.assert_array_equal(ours, gdcms(stream, pixels, bits))


@pytest.mark.parametrize("setting", [{"transform": 2}, {"restart_rows": 4}], ids=str)
def test_what_it_does_not_know_is_left_to_gdcm(setting: dict[str, int]) -> None:
    pixels = picture(12)
    stream = encode(pixels, 12, **setting)
    with pytest.raises(NotForThisDecoder):
        lossless_jpeg.decode_lossless_jpeg(stream, options(pixels, 12))
    dataset = make_dataset(pixels, BitsStored=12, PixelData=encapsulate([stream]))
    decoded = decoders.decode(dataset, JPEGLossless)
    np.testing.assert_array_equal(decoded, gdcms(stream, pixels, 12))


def test_other_depths_than_the_header_gives_are_left_to_pydicom() -> None:
    pixels = picture(12)
    with pytest.raises(NotForThisDecoder):
        lossless_jpeg.decode_lossless_jpeg(encode(pixels, 12), options(picture(8), 8))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_half_a_stream_is_rejected(kept: float) -> None:
    pixels = np.tile(picture(12), (20, 20))
    stream = encode(pixels, 12)
    dataset = make_dataset(
        pixels, BitsStored=12, PixelData=encapsulate([stream[: int(kept * len(stream))]])
    )
    with pytest.raises(ImageRejected) as caught:
        decoders.decode(dataset, JPEGLossless)
    assert caught.value.reason == "truncated"
