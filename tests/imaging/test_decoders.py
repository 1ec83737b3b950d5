"""Stored values in every transfer syntax: the very ones that pydicom gives."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from builders import make_dataset
from phantom import encoders
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoders
from cxr_embed.imaging.dicom import KEYWORDS
from cxr_embed.imaging.dicom_file import read_dicom

TAGS = [pydicom.datadict.tag_for_keyword(keyword) for keyword in KEYWORDS]

KINDS = {
    "8": (np.uint8, 8),
    "8 signed": (np.int8, 8),
    "7 of 8": (np.uint8, 7),
    "16": (np.uint16, 16),
    "12 of 16": (np.uint16, 12),
    "12 of 16 signed": (np.int16, 12),
    "16 signed": (np.int16, 16),
}


def picture(dtype: Any, bits: int) -> np.ndarray:
    """Returns 40 x 37 values, rough and smooth, over all of the bits: an odd number of bytes."""
    rng = np.random.default_rng(bits)
    top = 1 << bits
    values = (np.arange(40 * 37) * 5 % top).reshape(40, 37)
    values[10:30] = rng.integers(0, top, (20, 37))
    signed = np.dtype(dtype).kind == "i"
    return (values - top // 2 if signed else values).astype(dtype)


def as_file(pixels: np.ndarray, bits: int, syntax: str) -> bytes:
    header = make_dataset(pixels, BitsStored=bits, PixelData=None)
    buffer = io.BytesIO()
    encoders.add_pixels(header, pixels, syntax).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    dataset, syntax = read_dicom(data, TAGS, 1 << 30)
    return decoders.decode(dataset, syntax)


def pydicoms(data: bytes) -> np.ndarray:
    """Returns what pydicom alone makes of it, with our plugin; with its own for RLE."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = decoders.PINNED[syntax].plugin if syntax in decoders.PINNED else ""
    plugin = "pydicom" if syntax == RLELossless else plugin
    return get_decoder(syntax).as_array(dataset, raw=True, decoding_plugin=plugin)[0]


def is_readable(syntax: str) -> bool:
    """Whether the pinned decoder of a transfer syntax is installed."""
    try:
        decoders.require_decoder(syntax)
    except ImageRejected as rejected:
        assert rejected.reason == "unsupported_transfer_syntax"
        return False
    return True


def possible(syntax: str, kind: str) -> bool:
    dtype, bits = KINDS[kind]
    if syntax == "jpeg":
        return kind == "8"
    # Neither encoder takes them; the streams have no sign.
    return not (syntax.startswith(("jpegls", "j2k")) and np.dtype(dtype).kind == "i" and bits < 12)


CASES = [(s, k) for s in encoders.WRITABLE for k in KINDS if possible(s, k)]


@pytest.mark.parametrize(("syntax", "kind"), CASES)
def test_values_are_pydicoms(syntax: str, kind: str) -> None:
    pixels = picture(*KINDS[kind])
    data = as_file(pixels, KINDS[kind][1], syntax)
    decoded = decode(data)
    assert decoded.dtype == pixels.dtype
    # GDCM ends the process that asks it, as pydicom does, for less than 8 bits.
    if not (syntax.startswith("jpeg_lossless") and kind == "7 of 8"):
        np.testing.assert_array_equal(decoded, pydicoms(data))
    if syntax not in encoders.LOSSY:
        np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("syntax", ["explicit", "big_endian", "rle", "jpeg_lossless"])
@pytest.mark.parametrize("kind", ["12 of 16", "12 of 16 signed"])
def test_rubbish_above_bits_stored_is_cleared_as_pydicom_does(syntax: str, kind: str) -> None:
    dtype, bits = KINDS[kind]
    pixels = picture(dtype, bits)
    rubbish = (pixels.view(f"u{pixels.itemsize}") ^ (1 << (8 * pixels.itemsize - 1))).view(dtype)
    data = as_file(rubbish, bits, syntax)
    np.testing.assert_array_equal(decode(data), pydicoms(data))


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big_endian"])
def test_32_bit_values_are_pydicoms(syntax: str) -> None:
    pixels = picture(np.uint32, 20)
    data = as_file(pixels, 20, syntax)
    np.testing.assert_array_equal(decode(data), pydicoms(data))
    np.testing.assert_array_equal(decode(data), pixels)


@pytest.mark.parametrize("shape", [(6, 5), (5, 5)])
def test_bytes_in_big_endian_words_are_swapped(shape: tuple[int, int]) -> None:
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    data = bytearray(as_file(pixels, 8, "big_endian"))
    position = data.index(b"\x7f\xe0\x00\x10OB")
    data[position + 4 : position + 6] = b"OW"
    np.testing.assert_array_equal(decode(bytes(data)), pydicoms(bytes(data)))


def test_native_pixels_are_not_copied() -> None:
    data = as_file(picture(np.uint16, 12), 12, "explicit")
    decoded = decode(data)
    assert not decoded.flags.owndata
    assert not decoded.flags.writeable


class TestRealFiles:
    def test_high_throughput_jpeg_2000_and_all_the_others(self, sample_folder: Path) -> None:
        checked = set()
        for path in sorted((sample_folder / "dicom").glob("der_chest10_*")):
            data = path.read_bytes()
            if path.stem.endswith(("truncated", "noheader", "deflated")):
                continue
            syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
            if not is_readable(syntax):  # 12-bit JPEG needs an extra that is not installed here
                continue
            expected = pydicoms(data)
            np.testing.assert_array_equal(decode(data), expected, err_msg=path.name)
            checked.add(path.stem.removeprefix("der_chest10_"))
        assert checked >= {"htj2k", "j2ki", "j2kr", "jlsl", "jlsn", "jpll_p14", "jpll_sv1", "rle"}


class TestRle:
    """Streams that other programs write, or that no program writes."""

    @staticmethod
    def dataset(*segments: bytes, shape: tuple[int, int] = (2, 4)) -> Dataset:
        offsets = np.cumsum([64, *(len(segment) for segment in segments)])[:-1]
        header = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments)))
        bits = 8 * len(segments)
        dataset = make_dataset(np.zeros(shape, f"u{bits // 8}"))
        dataset.PixelData = encapsulate([header + b"".join(segments)])
        dataset.file_meta.TransferSyntaxUID = RLELossless
        return dataset

    @pytest.mark.parametrize(
        "segment",
        [
            bytes([7, *range(8)]),
            bytes([3, 0, 1, 2, 3, 128, 128, 3, 4, 5, 6, 7]),  # 128 means nothing
            bytes([249, 9, 0]),  # one run and a byte of padding
            bytes([240, 5]),  # a run longer than the image
            bytes([7, *range(8), 3, 1, 2, 3, 4]),  # more behind it
            bytes([0, 1, 250, 2, 0, 0]),
        ],
    )
    @pytest.mark.parametrize("count", [1, 2, 4])
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_they_are_read_as_pydicom_does(self, segment: bytes, count: int) -> None:
        dataset = self.dataset(*[segment] * count)
        expected = get_decoder(RLELossless).as_array(dataset, decoding_plugin="pydicom")[0]
        np.testing.assert_array_equal(decoders.decode(dataset, RLELossless), expected)

    @pytest.mark.parametrize("segment", [b"", b"\x07", bytes([3, 1, 2, 3, 4]), b"\x80" * 9])
    def test_too_few_bytes_are_truncated(self, segment: bytes) -> None:
        with pytest.raises(ImageRejected) as caught:
            decoders.decode(self.dataset(segment, segment), RLELossless)
        assert caught.value.reason in ("truncated", "decode_error")
