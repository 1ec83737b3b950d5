"""JPEG 2000 and HTJ2K at lower resolutions; imagecodecs writes, with an OpenJPEG of its own."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from builders import as_bytes, jpeg2000, make_dataset, make_jpeg2000
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoders, image_files, reduced_jpeg2000

ROWS, COLUMNS = 201, 150


def smooth(bits: int, is_signed: bool = False) -> np.ndarray:
    """A ramp with two discs, over most of the range."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    grey = 0.2 + 0.6 * (x + y) / (ROWS + COLUMNS)
    for row, column in ((60, 50), (130, 100)):
        grey += 0.15 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 400)
    lowest = -(1 << (bits - 1)) if is_signed else 0
    kind = f"{'i' if is_signed else 'u'}{1 if bits <= 8 else 2}"
    return (grey * ((1 << bits) - 1) + lowest).astype(kind)


def options(pixels: np.ndarray, bits: int) -> dict[str, Any]:
    return decoders._options(make_dataset(pixels, BitsStored=bits, PixelData=None))


class TestDecodeReduced:
    @pytest.mark.parametrize(
        ("bits", "is_signed"), list(itertools.product((5, 8, 10, 12, 15, 16), (False, True)))
    )
    def test_values_and_types_are_those_of_the_whole_image(
        self, bits: int, is_signed: bool
    ) -> None:
        pixels = smooth(bits, is_signed)
        stream = jpeg2000(pixels, bits)
        for count in range(4):
            found = reduced_jpeg2000.decode_reduced(stream, options(pixels, bits), count)
            assert found is not None
            assert found.dtype == pixels.dtype
            size = (-(-ROWS // 2**count), -(-COLUMNS // 2**count))
            assert found.shape == size
            if count == 0:
                np.testing.assert_array_equal(found, pixels)
            # The filter keeps each second pixel, while a mean lies between two: half a pixel apart.
            kept = pixels[:: 2**count, :: 2**count].astype(float)
            assert np.abs(found - kept).max() <= max(2, 0.03 * (1 << bits))

    def test_htj2k_too(self) -> None:
        pixels = smooth(16)
        stream = bytes(imagecodecs.htj2k_encode(pixels))
        made = make_dataset(pixels, PixelData=encapsulate([stream]))
        made.file_meta.TransferSyntaxUID = HTJ2KLossless
        whole = decoders.decode(made, HTJ2KLossless)
        np.testing.assert_array_equal(whole, pixels)
        half = decoders.decode(made, HTJ2KLossless, cover=(100, 75))
        assert half.shape == (101, 75)
        assert np.abs(half - pixels[::2, ::2].astype(float)).max() < 2000


class TestHalvings:
    @pytest.mark.parametrize(
        ("cover", "count"),
        [
            ((201, 150), 0), ((102, 10), 0), ((101, 75), 1), ((101, 76), 0), ((51, 38), 2),
            ((50, 38), 2), ((26, 19), 3), ((1, 1), 4),
        ],
    )  # fmt: skip
    def test_the_lowest_resolution_that_covers_the_model(
        self, cover: tuple[int, int], count: int
    ) -> None:
        pixels = smooth(12)
        stream = jpeg2000(pixels, 12)
        assert reduced_jpeg2000.read_samples(stream).decompositions == 4
        assert reduced_jpeg2000.halvings(stream, options(pixels, 12), cover) == count

    def test_boxes_before_the_stream(self) -> None:
        pixels = smooth(12)
        stream = b"\0\0\0\x0cjP  \r\n\x87\n" + jpeg2000(pixels, 12)
        assert reduced_jpeg2000.halvings(stream, options(pixels, 12), (101, 75)) == 1
        found = reduced_jpeg2000.decode_reduced(stream, options(pixels, 12), 0)
        np.testing.assert_array_equal(found, pixels)

    def test_none_where_header_and_stream_disagree(self) -> None:
        stream = jpeg2000(smooth(12), 12)
        for other in (smooth(12, is_signed=True), smooth(8)):
            assert reduced_jpeg2000.halvings(stream, options(other, 8), (1, 1)) == 0

    def test_none_for_a_damaged_stream(self) -> None:
        pixels = smooth(12)
        stream = jpeg2000(pixels, 12)
        for length in range(0, 120, 7):
            reduced_jpeg2000.halvings(stream[:length], options(pixels, 12), (1, 1))
        assert reduced_jpeg2000.halvings(stream[:60], options(pixels, 12), (1, 1)) == 0


class TestReadImage:
    def read(
        self, made: Any, cover: tuple[int, int] | None, rendering: str = "cxr_foundation"
    ) -> Any:
        return image_files.read_image(as_bytes(made), rendering=rendering, cover=cover)

    def test_a_smaller_picture_of_the_same_contrast(self) -> None:
        pixels = smooth(12)
        made = make_jpeg2000(pixels, 12)
        whole, half = self.read(made, None), self.read(made, (90, 70))
        assert whole.pixels.shape == (ROWS, COLUMNS)
        assert half.pixels.shape == (101, 75)
        assert "decoded at 101 x 75" in half.steps
        small = cv2.resize(whole.pixels, (75, 101), interpolation=cv2.INTER_AREA)
        assert np.abs(half.pixels.astype(float) - small).mean() < 0.02 * 65535
        assert (half.pixels.min(), half.pixels.max()) == (whole.pixels.min(), whole.pixels.max())

    @pytest.mark.parametrize(
        "elements",
        [{"WindowCenter": None, "WindowWidth": None}, {"PixelPaddingValue": 0}],
        ids=["no window", "padding"],
    )
    def test_whole_where_averages_would_change_the_range(self, elements: dict[str, Any]) -> None:
        pixels = smooth(12)
        made = make_jpeg2000(pixels, 12, **elements)
        whole, found = (self.read(made, cover, "dicom") for cover in (None, (10, 10)))
        np.testing.assert_array_equal(found.pixels, whole.pixels)
        assert found.steps == whole.steps

    def test_other_syntaxes_are_read_whole(self) -> None:
        made = make_dataset(smooth(12), BitsStored=12, WindowCenter=2000, WindowWidth=1000)
        assert self.read(made, (10, 10)).pixels.shape == (ROWS, COLUMNS)

    def test_half_a_stream_is_rejected_for_the_same_reason(self) -> None:
        pixels = smooth(12)
        stream = jpeg2000(pixels, 12)
        made = make_jpeg2000(pixels, 12, stream[: len(stream) // 50])
        reasons = set()
        for cover in (None, (10, 10)):
            with pytest.raises(ImageRejected) as caught:
                self.read(made, cover)
            reasons.add(caught.value.reason)
        assert reasons == {"truncated"}
