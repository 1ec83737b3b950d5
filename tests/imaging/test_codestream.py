"""The sizes that compressed streams give, and wrong ones that no decoder receives."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from builders import GRADIENT, make_dataset
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.codestream import StreamSize, check_stream, only_frame, read_stream_size


def stream(syntax: str) -> bytes:
    dataset = make_dataset()
    dataset.compress(syntax, encoding_plugin="pyjpegls" if syntax == JPEGLSLossless else "")
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
NO_OFFSETS = ITEM + bytes(4)
UNDEFINED = b"\xff" * 4


def item(value: bytes) -> bytes:
    return ITEM + struct.pack("<I", len(value)) + value


@pytest.mark.parametrize(
    "pixel_data",
    [
        NO_OFFSETS + item(b"abcdef") + END,
        NO_OFFSETS + item(b"abc") + item(b"def") + END + b"whatever follows",
        item(bytes(4)) + item(b"abcd") + item(b"ef"),
        NO_OFFSETS + item(b"abcdef") + ITEM + b"\0\0",
        NO_OFFSETS + ITEM + struct.pack("<I", 1000) + b"abcdef",
    ],
    ids=["one fragment", "two", "no end", "cut in an item's header", "cut in a fragment"],
)
def test_the_fragments_of_a_frame_are_joined(pixel_data: bytes) -> None:
    assert bytes(only_frame(memoryview(pixel_data))) == b"abcdef"


@pytest.mark.parametrize(
    ("pixel_data", "reason"),
    [
        (b"", "truncated"),
        (NO_OFFSETS, "truncated"),
        (NO_OFFSETS + END, "truncated"),
        (item(bytes(8)) + item(b"a") + item(b"b"), "multi_frame"),
        (NO_OFFSETS + b"rubbish!" + bytes(8), "decode_error"),
        (NO_OFFSETS + ITEM + UNDEFINED + b"abcdef", "decode_error"),
        (NO_OFFSETS * 1_000_002, "decode_error"),
    ],
    ids=["empty", "no fragment", "no fragment, end", "two frames", "no item", "undefined length",
         "a million fragments"],
)  # fmt: skip
def test_damaged_fragments_are_rejected(pixel_data: bytes, reason: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        only_frame(pixel_data)
    assert caught.value.reason == reason


def jpeg_claiming(rows: int, columns: int, components: int = 1) -> bytes:
    frame = struct.pack(">BHHB", 8, rows, columns, components) + bytes(3 * components)
    return (
        b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(10)
        + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"
    )  # fmt: skip


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_real_streams_are_read(syntax: str) -> None:
    assert read_stream_size(stream(syntax)) == StreamSize(*GRADIENT.shape, 1)
    check_stream(stream(syntax), syntax, *GRADIENT.shape, 2)


def test_jpeg_headers_are_read_behind_other_markers() -> None:
    assert read_stream_size(jpeg_claiming(300, 200)) == StreamSize(300, 200, 1)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_another_size_than_the_headers_is_refused(syntax: str) -> None:
    with pytest.raises(ImageRejected, match="are 72 x 64, the header gives 72 x 65") as caught:
        check_stream(stream(syntax), syntax, 72, 65, 2)
    assert caught.value.reason == "decode_error"


def test_a_stream_that_claims_to_be_huge_is_refused() -> None:
    with pytest.raises(ImageRejected, match="65535 x 65535"):
        check_stream(jpeg_claiming(65535, 65535), JPEGBaseline8Bit, 100, 100, 1)


def test_colour_inside_a_grey_header_is_refused() -> None:
    with pytest.raises(ImageRejected, match="3 components"):
        check_stream(jpeg_claiming(100, 100, 3), JPEGBaseline8Bit, 100, 100, 1)


class TestRle:
    good = struct.pack("<16I", 2, 64, 70, *[0] * 13) + bytes(20)

    def test_a_good_header(self) -> None:
        check_stream(self.good, RLELossless, 10, 10, 2)
        check_stream(stream(RLELossless), RLELossless, *GRADIENT.shape, 2)

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ((2, 70, 64), "decode_error"),
            ((2, 0, 70), "decode_error"),
            ((3, 64, 70), "decode_error"),
            ((0, 0, 0), "decode_error"),
            ((2**32 - 1, 64, 70), "decode_error"),
            ((2, 64, 4_000_000), "truncated"),
        ],
    )
    def test_headers_that_lie(self, header: tuple[int, ...], reason: str) -> None:
        data = struct.pack("<16I", *header, *[0] * 13) + bytes(20)
        with pytest.raises(ImageRejected) as caught:
            check_stream(data, RLELossless, 10, 10, 2)
        assert caught.value.reason == reason

    def test_a_cut_header(self) -> None:
        with pytest.raises(ImageRejected) as caught:
            check_stream(self.good[:50], RLELossless, 10, 10, 2)
        assert caught.value.reason == "truncated"


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51"]))
def test_rubbish_is_only_ever_rejected_or_read(data: bytes, start: bytes) -> None:
    size = read_stream_size(start + data)
    assert size is None or isinstance(size, StreamSize)
    for syntax in (JPEGBaseline8Bit, RLELossless):
        try:
            check_stream(start + data, syntax, 10, 10, 2)
        except ImageRejected:
            continue
        assert np.prod(size or (100,)) <= 100 or syntax == RLELossless
