"""A file is judged by its first bytes as the whole of it is."""

from __future__ import annotations

import functools
import gzip
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from builders import GRADIENT, as_bytes, make_dataset, make_dicom
from good_files import seeds
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from cxr_embed import read_radiograph
from cxr_embed.errors import ImageRejected, ImageSkipped
from cxr_embed.file_types import PREFIX_BYTES
from cxr_embed.imaging.dicom import HEADER_ALLOWANCE
from cxr_embed.imaging.image_files import admit, read_image

# Without the time of packing: parallel test workers must collect the same parameters.
compress = functools.partial(gzip.compress, mtime=0)

PACKED_ARCHIVE = compress(b"folder/image.dcm".ljust(4096, b"\0"))


def picture(kind: str = "PNG", pixels: np.ndarray = GRADIENT, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def reason(function: Any, data: bytes, **options: Any) -> str | None:
    try:
        function(data, **options)
    except (ImageRejected, ImageSkipped) as end:
        return end.reason
    return None


def assert_agree(data: bytes, name: str, **options: Any) -> None:
    """What the first bytes decide, the whole file decides too, for the same reason."""
    whole = reason(read_image, data, **options)
    for size in (200, 1000, 4096, PREFIX_BYTES):
        early = reason(admit, data[:size], **options)
        assert early in (None, whole), (name, size)
        if whole is None:
            assert len(data) <= admit(data[:size], **options), (name, size)


class TestAgreement:
    def test_over_all_sample_files(self, sample_folder: Path) -> None:
        paths = sorted((sample_folder / "dicom").iterdir())
        assert len(paths) > 30
        for path in paths:
            assert_agree(path.read_bytes(), path.name)
            assert_agree(path.read_bytes(), path.name, views="frontal")

    def test_over_all_files_of_pydicoms_own_tests(self) -> None:
        folder = Path(pydicom.data.__file__).parent / "test_files"
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        assert len(paths) > 50
        for path in paths:
            assert_agree(path.read_bytes(), path.name)

    @pytest.mark.parametrize("kind", seeds())
    @pytest.mark.parametrize("max_pixels", [1000, 100_000])
    def test_over_good_files_of_each_kind(self, kind: str, max_pixels: int) -> None:
        data = seeds()[kind]
        assert_agree(data, kind, max_pixels=max_pixels)
        assert_agree(data[: len(data) // 2], kind, max_pixels=max_pixels)
        assert_agree(compress(data), kind, max_pixels=max_pixels)
        for file_type in ("dicom", "png", "jpeg"):
            assert_agree(data, kind, max_pixels=max_pixels, file_type=file_type)


class TestRejections:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", "not_an_image"),
            (b"%PDF-1.7".ljust(5000), "not_an_image"),
            (b"PK\x03\x04".ljust(5000), "not_an_image"),
            (PACKED_ARCHIVE, "not_an_image"),
            (make_dicom(NumberOfFrames=300), "multi_frame"),
            (compress(make_dicom(NumberOfFrames=300)), "multi_frame"),
            (make_dicom(PhotometricInterpretation="RGB", SamplesPerPixel=3), "not_grayscale"),
            (make_dicom(Rows=60_000, Columns=60_000), "too_large"),
            (picture(pixels=np.zeros((20_000, 6_000), np.uint8)), "too_large"),
        ],
    )
    def test_each_is_known_from_the_first_bytes(self, data: bytes, expected: str) -> None:
        assert reason(admit, data[:PREFIX_BYTES]) == expected

    @pytest.mark.parametrize("file_type", ["png", "jpeg"])
    def test_another_type_than_asked_for(self, file_type: str) -> None:
        assert reason(admit, make_dicom(), file_type=file_type) == "not_an_image"
        assert reason(admit, compress(make_dicom()), file_type=file_type) == "not_an_image"

    def test_what_only_the_whole_file_shows_is_not_decided(self) -> None:
        assert reason(admit, make_dicom(PixelData=None)) is None
        assert reason(admit, make_dicom()[:300]) is None

    def test_a_lateral_film_is_skipped_as_by_reading_it(self) -> None:
        data = make_dicom(ViewPosition="LL", NumberOfFrames=9)
        assert reason(admit, data) == "multi_frame"
        assert reason(admit, data, views="frontal") == "not_frontal"


class TestLimits:
    pixels = GRADIENT.size

    @pytest.mark.parametrize(
        ("data", "bytes_a_pixel"),
        [
            (make_dicom(), 4),
            (compress(make_dicom()), 4),
            (picture("PNG"), 8),
            (picture("JPEG", (GRADIENT >> 8).astype(np.uint8)), 4),
        ],
        ids=["dicom", "gzip", "png", "jpeg"],
    )
    def test_it_is_what_the_header_can_need(self, data: bytes, bytes_a_pixel: int) -> None:
        assert admit(data) == bytes_a_pixel * self.pixels + HEADER_ALLOWANCE

    def test_compressed_pixels_hardly_grow(self) -> None:
        dataset = make_dataset()
        dataset.compress(JPEG2000Lossless)
        assert admit(as_bytes(dataset)) == 4 * self.pixels + HEADER_ALLOWANCE

    def test_a_deflated_header_is_read_through(self) -> None:
        dataset = make_dataset()
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        assert admit(as_bytes(dataset)) == 4 * self.pixels + HEADER_ALLOWANCE

    def test_a_header_longer_than_the_first_bytes_still_gives_the_size(self) -> None:
        dataset = make_dataset(NumberOfFrames=2)
        dataset.private_block(0x0029, "X", create=True).add_new(1, "OB", bytes(200_000))
        data = as_bytes(dataset)
        # Whether there are pixels behind it is not known, but two gigabytes need not be read.
        assert admit(data[:PREFIX_BYTES]) == 4 * self.pixels + HEADER_ALLOWANCE
        assert reason(read_image, data) == "multi_frame"

    def test_without_a_size_max_pixels_counts(self) -> None:
        assert admit(make_dicom()[:300], max_pixels=1000) == 4 * 1000 + HEADER_ALLOWANCE
        assert admit(b"\x1f\x8b\x08", max_pixels=1000) == 8 * 1000 + HEADER_ALLOWANCE


class _Stream(io.RawIOBase):
    """A stream that cannot seek and gives a few bytes at a time, as from a network."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(min(size, 7_000))
        self.taken += len(part)
        return part


class TestSources:
    @pytest.mark.parametrize("data", [make_dicom(), picture(), compress(picture())])
    def test_every_source_gives_the_same_pixels(self, data: bytes, tmp_path: Path) -> None:
        path = tmp_path / "image"
        path.write_bytes(data)
        expected = read_image(data).pixels
        sources: tuple[Any, ...] = (
            path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data),
            _Stream(data),
        )  # fmt: skip
        for source in sources:
            np.testing.assert_array_equal(read_radiograph(source).pixels, expected)
        with path.open("rb") as file:
            np.testing.assert_array_equal(read_radiograph(file).pixels, expected)

    def test_a_picture_is_read_as_the_main_job_reads_it(self) -> None:
        with pytest.raises(ImageRejected) as caught:
            read_radiograph(picture(pixels=np.full((9, 9), 5, np.uint8)))
        rejected = caught.value
        assert (rejected.stage, rejected.reason) == ("render", "constant_image")
        assert rejected.detail == "one value in all pixels"

    def test_a_large_image_comes_whole(self, tmp_path: Path) -> None:
        pixels = np.arange(700 * 600, dtype=np.uint32).reshape(700, 600).astype(np.uint16)
        data = make_dicom(pixels)
        assert len(data) > 10 * PREFIX_BYTES
        path = tmp_path / "image.dcm"
        path.write_bytes(data)
        expected = read_image(data).pixels
        for source in (path, io.BytesIO(data), _Stream(data)):
            np.testing.assert_array_equal(read_radiograph(source).pixels, expected)

    def test_a_film_of_many_frames_is_not_read(self) -> None:
        stream = _Stream(make_dicom(NumberOfFrames=100) + bytes(1 << 20))
        assert reason(read_radiograph, stream) == "multi_frame"  # type: ignore[arg-type]
        assert stream.taken == PREFIX_BYTES

    @pytest.mark.parametrize("start", [b"KDMV", make_dicom(NumberOfFrames=2), make_dicom()])
    def test_a_disk_image_of_four_gigabytes_takes_no_memory(
        self, start: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "disk"
        path.write_bytes(start)
        os.truncate(path, 4 << 30)  # sparse
        read_radiograph(make_dicom())  # imports
        tracemalloc.start()
        try:
            assert reason(read_radiograph, path) in ("not_an_image", "multi_frame", "too_large")  # type: ignore[arg-type]
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_a_large_native_file_is_not_copied(self) -> None:
        pixels = (np.arange(2000 * 2000) % 60_000).astype(np.uint16).reshape(2000, 2000)
        data = make_dicom(pixels)
        read_radiograph(data)
        tracemalloc.start()
        try:
            read_radiograph(memoryview(data))
            # The rendered pixels, and tables over the stored values.
            assert tracemalloc.get_traced_memory()[1] < 1.5 * pixels.nbytes
        finally:
            tracemalloc.stop()
