"""HTJ2K with OpenJPH; OpenJPEG, which decodes what OpenJPH does not, is the referee."""

from __future__ import annotations

import random
from typing import Any

import imagecodecs
import numpy as np
import pytest
from builders import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import HTJ2K, HTJ2KLossless

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoders
from cxr_embed.imaging.codestream import NotForThisDecoder
from cxr_embed.imaging.htj2k import decode_htj2k


def picture(kind: str = "u2", rows: int = 130, columns: int = 70) -> np.ndarray:
    """Waves with some noise over the whole range, in several code blocks."""
    y, x = np.mgrid[:rows, :columns]
    grey = 0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 11)
    grey += np.random.default_rng(0).normal(0, 0.01, grey.shape)
    limits = np.iinfo(kind)
    return (limits.min + grey.clip(0, 1) * (int(limits.max) - limits.min)).astype(kind)


def encode(pixels: np.ndarray, **setting: Any) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, **setting))


def options(pixels: np.ndarray) -> dict[str, Any]:
    return decoders._options(make_dataset(pixels, PixelData=None))


def openjpegs(stream: bytes, pixels: np.ndarray) -> np.ndarray:
    array, _ = get_decoder(HTJ2KLossless).as_array(
        encapsulate([stream]), raw=True, decoding_plugin="pylibjpeg", **options(pixels)
    )
    return array


@given(
    kind=st.sampled_from(["u1", "i1", "u2", "i2"]),
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
)
@settings(max_examples=40, deadline=None)
def test_every_size_and_type(kind: str, rows: int, columns: int) -> None:
    pixels = picture(kind, rows, columns)
    decoded = decode_htj2k(encode(pixels), options(pixels))
    assert decoded.dtype == pixels.dtype
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    "setting", [{}, {"resolutions": 1}, {"tile": (64, 64)}, {"tlm": True}], ids=str
)
def test_it_equals_openjpeg(setting: dict[str, Any]) -> None:
    pixels = picture()
    stream = encode(pixels, **setting)
    for start in (b"", b"\0\0\0\x0cjP  \r\n\x87\n"):
        found = decode_htj2k(start + stream, options(pixels))
        np.testing.assert_array_equal(found, openjpegs(stream, pixels))


def test_a_wavelet_of_fractions_is_left_to_openjpeg() -> None:
    pixels = picture()
    stream = encode(pixels, reversible=False)
    with pytest.raises(NotForThisDecoder):
        decode_htj2k(stream, options(pixels))
    dataset = make_dataset(pixels, PixelData=encapsulate([stream]))
    np.testing.assert_array_equal(decoders.decode(dataset, HTJ2K), openjpegs(stream, pixels))


def test_other_signs_and_depths_than_the_header_gives_are_left_to_pydicom() -> None:
    for other in ("i2", "u1"):
        with pytest.raises(NotForThisDecoder):
            decode_htj2k(encode(picture()), options(picture(other)))


class TestDamage:
    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
    def test_half_a_stream_is_rejected(self, kept: float) -> None:
        pixels = picture()
        stream = encode(pixels)[: int(kept * len(encode(pixels)))]
        with pytest.raises(NotForThisDecoder):
            decode_htj2k(stream, options(pixels))
        dataset = make_dataset(pixels, PixelData=encapsulate([stream]))
        with pytest.raises(ImageRejected) as caught:
            decoders.decode(dataset, HTJ2KLossless)
        assert caught.value.reason == "truncated"

    def test_missing_bytes_are_noticed(self) -> None:
        # OpenJPH itself fills what the end lacks with zeros.
        pixels = picture()
        stream = encode(pixels)
        for length in (1, 10, 200):
            cut = stream[: -2 - length] + stream[-2:]
            with pytest.raises(NotForThisDecoder):
                decode_htj2k(cut, options(pixels))

    def test_it_passes_few_streams_that_openjpeg_rejects(self) -> None:
        pixels = picture("u1", 300, 260)
        stream = encode(pixels)
        chosen = random.Random(0)
        rejected = passed = 0
        for _ in range(300):
            damaged = bytearray(stream)
            damaged[chosen.randrange(150, len(stream) - 2)] ^= 1 << chosen.randrange(8)
            try:
                openjpegs(bytes(damaged), pixels)
            except Exception:
                rejected += 1
                try:
                    decode_htj2k(bytes(damaged), options(pixels))
                    passed += 1
                except (NotForThisDecoder, RuntimeError):
                    pass
        assert rejected > 50
        assert passed <= 0.1 * rejected
