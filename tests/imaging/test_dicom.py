"""DICOM files to radiographs: what is read, what is warned of, what is rejected and why."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, as_bytes, lut_item, make_dataset, make_dicom
from plain_rendering import render_plainly
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from cxr_embed import read_radiograph
from cxr_embed.errors import ImageRejected, ImageSkipped
from cxr_embed.imaging import decoders, dicom_file
from cxr_embed.outcomes import FAILURE_REASONS, Stage


def rejection(source: Any, **options: Any) -> str:
    with pytest.raises(ImageRejected) as caught:
        read_radiograph(source, **options)
    assert caught.value.stage == FAILURE_REASONS[caught.value.reason].stage
    assert "\n" not in caught.value.detail
    return caught.value.reason


class TestRealFiles:
    def test_expected_pixels_to_the_last_bit(self, sample_folder: Path) -> None:
        with (sample_folder / "expected_cxr_foundation.csv").open() as table:
            rows = list(csv.DictReader(table))
        wrong = []
        for row in rows:
            try:
                pixels = read_radiograph(sample_folder / "dicom" / row["file"]).pixels
                little = pixels.astype(pixels.dtype.newbyteorder("<"))
                got = hashlib.sha256(little.tobytes()).hexdigest()
            except ImageRejected as rejected:
                got = f"rejected: {rejected.reason}"
            expected = {row["sha256"] or row["dtype"]}
            expected |= {
                f"rejected: {r}" for r in row["note"].removeprefix("or rejected: ").split(" / ")
            }
            if got not in expected and not any(got in str(v) for v in row.values()):
                wrong.append((row["file"], got))
        assert len(rows) > 30
        assert wrong == []

    def test_radiographs_that_packages_ship(self, real_radiographs: dict[str, Path]) -> None:
        import pydicom

        for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm", "RG3_J2KR.dcm", "RG3_J2KI.dcm"):
            dataset = pydicom.dcmread(real_radiographs[name])
            window = None
            if "WindowCenter" in dataset:
                window = (dataset.WindowCenter, dataset.WindowWidth)
                window = tuple(list(v) if np.iterable(v) else float(v) for v in window)
            rescale = None
            if "RescaleSlope" in dataset:
                rescale = (float(dataset.RescaleSlope), float(dataset.RescaleIntercept))
            expected = render_plainly(
                dataset.pixel_array,
                window=window,
                rescale=rescale,
                monochrome1=dataset.PhotometricInterpretation == "MONOCHROME1",
            )
            np.testing.assert_array_equal(read_radiograph(real_radiographs[name]).pixels, expected)


class TestSources:
    def test_path_bytes_file_and_dataset_are_the_same(self, tmp_path: Path) -> None:
        dataset = make_dataset()
        data = as_bytes(dataset)
        path = tmp_path / "image"
        path.write_bytes(data)
        expected = read_radiograph(data).pixels
        for source in (path, str(path), io.BytesIO(data), dataset, gzip.compress(data)):
            np.testing.assert_array_equal(read_radiograph(source).pixels, expected)

    def test_the_callers_dataset_is_not_written_to(self) -> None:
        dataset = make_dataset(BitsStored=None, HighBit=None, SamplesPerPixel=None)
        before = dataset.to_json()
        for mode in ("cxr_foundation", "dicom"):
            assert read_radiograph(dataset, mode).pixels.shape == GRADIENT.shape
        assert dataset.to_json() == before

    def test_a_missing_path_is_an_os_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_radiograph(tmp_path / "nothing.dcm")

    def test_an_unknown_rendering_is_a_programming_error(self) -> None:
        with pytest.raises(ValueError, match="cxr_foundation, dicom"):
            read_radiograph(make_dicom(), rendering="bone")

    @pytest.mark.parametrize(
        "syntax",
        [
            ImplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
            RLELossless,
            JPEGLSLossless,
            JPEG2000Lossless,
        ],
        ids=lambda uid: uid.keyword,
    )
    def test_lossless_transfer_syntaxes_give_the_same_pixels(self, syntax: Any) -> None:
        dataset = make_dataset()
        expected = read_radiograph(as_bytes(dataset)).pixels
        if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
            plugin = "pyjpegls" if syntax == JPEGLSLossless else ""
            dataset.compress(syntax, encoding_plugin=plugin)
            data = as_bytes(dataset)
        else:
            if syntax == ExplicitVRBigEndian:
                dataset.PixelData = GRADIENT.byteswap().tobytes()
                dataset.set_original_encoding(False, False)
            dataset.file_meta.TransferSyntaxUID = syntax
            data = as_bytes(dataset)
        np.testing.assert_array_equal(read_radiograph(data).pixels, expected)

    def test_a_folder_named_dl_does_not_break_the_decoders(self, tmp_path: Path) -> None:
        (tmp_path / "dl").mkdir()
        (tmp_path / "image.dcm").write_bytes(make_dicom())
        code = "import cxr_embed; print(cxr_embed.read_radiograph('image.dcm').pixels.max())"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "65535"


class TestHeader:
    def test_empty_window_and_rescale_count_as_absent(self) -> None:
        plain = read_radiograph(make_dicom()).pixels
        empty = make_dicom(WindowCenter="", WindowWidth="", RescaleSlope="", RescaleIntercept="")
        np.testing.assert_array_equal(read_radiograph(empty).pixels, plain)

    def test_bits_above_bits_stored_are_ignored(self) -> None:
        stored = GRADIENT % 1024
        rubbish = stored | np.uint16(0xA000)
        np.testing.assert_array_equal(
            read_radiograph(make_dicom(rubbish, BitsStored=10)).pixels,
            read_radiograph(make_dicom(stored, BitsStored=10)).pixels,
        )

    def test_signed_bits_above_bits_stored_are_the_sign(self) -> None:
        stored = (GRADIENT % 1024).astype(np.int16) - 512
        without_sign = stored & np.int16(0x3FF)
        np.testing.assert_array_equal(
            read_radiograph(make_dicom(without_sign, BitsStored=10)).pixels,
            read_radiograph(make_dicom(stored, BitsStored=16)).pixels,
        )

    def test_one_frame_may_be_said_so(self) -> None:
        assert read_radiograph(make_dicom(NumberOfFrames=1)).pixels.shape == GRADIENT.shape

    def test_a_modality_lut_is_applied(self) -> None:
        stored = (GRADIENT // 8 % 4).astype(np.uint16)
        table = [40, 0, 10, 300]
        pixels = read_radiograph(
            make_dicom(stored, ModalityLUTSequence=[lut_item(0, table, 16)])
        ).pixels
        np.testing.assert_array_equal(pixels, render_plainly(np.array(table, np.uint16)[stored]))


class TestWarnings:
    @pytest.mark.parametrize(
        ("elements", "warning"),
        [
            ({"VOILUTSequence": [lut_item(0, [1, 2], 16)]}, "voi_lut_ignored"),
            ({"PresentationLUTShape": "INVERSE"}, "presentation_inverse_ignored"),
            (
                {"VOILUTFunction": "SIGMOID", "WindowCenter": 900, "WindowWidth": 100},
                "voi_function_ignored",
            ),
            ({"WindowCenter": [900, 1], "WindowWidth": [100, 1]}, "multiple_windows"),
            ({"ViewPosition": None}, "missing_view_position"),
            ({"ViewPosition": ""}, "missing_view_position"),
            ({"ViewPosition": "LL"}, "not_frontal"),
            ({"LossyImageCompression": "01"}, "lossy_compressed"),
            ({"Modality": "CT"}, "not_a_radiograph"),
        ],
    )
    def test_each_has_its_cause(self, elements: dict[str, Any], warning: str) -> None:
        assert read_radiograph(make_dicom(**elements)).warnings == [warning]

    def test_a_plain_frontal_radiograph_has_none(self) -> None:
        assert read_radiograph(make_dicom()).warnings == []

    def test_the_dicom_rendering_uses_what_the_other_ignores(self) -> None:
        data = make_dicom(
            VOILUTSequence=[lut_item(0, list(range(4000)), 12)], PresentationLUTShape="INVERSE"
        )
        assert read_radiograph(data, "dicom").warnings == []


class TestRejections:
    @pytest.mark.parametrize(
        ("elements", "reason"),
        [
            ({"PixelData": None}, "no_pixel_data"),
            ({"PixelData": b""}, "truncated"),
            ({"PixelData": b"\0" * 100}, "truncated"),
            ({"PhotometricInterpretation": "RGB"}, "not_grayscale"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_grayscale"),
            ({"PhotometricInterpretation": None}, "not_grayscale"),
            ({"SamplesPerPixel": 3}, "not_grayscale"),
            ({"NumberOfFrames": 2}, "multi_frame"),
            ({"Rows": 0}, "decode_error"),
            ({"Rows": None}, "decode_error"),
            ({"Rows": 65535, "Columns": 65535}, "too_large"),
            ({"BitsAllocated": 1, "BitsStored": 1}, "unsupported_bit_depth"),
            ({"BitsAllocated": 64, "BitsStored": 64}, "unsupported_bit_depth"),
            ({"BitsStored": 17}, "unsupported_bit_depth"),
            ({"WindowCenter": 900, "WindowWidth": 0}, "constant_image"),
        ],
    )
    def test_each_has_its_reason(self, elements: dict[str, Any], reason: str) -> None:
        assert rejection(make_dicom(**elements)) == reason

    def test_a_bad_window_in_dicom_mode(self) -> None:
        data = make_dicom(WindowCenter=900, WindowWidth=0)
        assert rejection(data, rendering="dicom") == "bad_window"

    def test_a_window_that_is_not_a_number(self) -> None:
        data = make_dicom(WindowCenter="12", WindowWidth="34").replace(b"34", b"3x")
        assert rejection(data) == "bad_window"

    def test_a_constant_image(self) -> None:
        assert rejection(make_dicom(np.full((9, 9), 7, np.uint16))) == "constant_image"

    @pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 5000, b"%PDF-1.7" + b"x" * 900])
    def test_what_is_no_dicom_at_all(self, data: bytes) -> None:
        assert rejection(data) == "not_an_image"

    def test_a_file_that_ends_early(self) -> None:
        data = make_dicom()
        assert rejection(data[:-200]) == "truncated"

    def test_an_unknown_transfer_syntax(self) -> None:
        dataset = make_dataset()
        dataset.compress(RLELossless)
        data = as_bytes(dataset).replace(b"1.2.840.10008.1.2.5", b"1.2.840.10008.9.9.9")
        assert rejection(data) == "unsupported_transfer_syntax"

    def test_damaged_compressed_pixels(self) -> None:
        dataset = make_dataset()
        dataset.compress(JPEG2000Lossless)
        data = bytearray(as_bytes(dataset))
        start = data.index(b"\xff\x4f\xff\x51")
        data[start + 20 : start + 60] = b"\x55" * 40
        assert rejection(bytes(data)) in ("decode_error", "too_large")

    @pytest.mark.parametrize(
        "syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda uid: uid.keyword
    )
    @pytest.mark.parametrize("kept", [0.5, 0.99])
    def test_compressed_pixels_that_end_too_early(self, syntax: Any, kept: float) -> None:
        dataset = make_dataset()
        dataset.compress(syntax, encoding_plugin="pyjpegls" if syntax == JPEGLSLossless else "")
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        dataset.PixelData = encapsulate([frame[: int(len(frame) * kept)]])
        assert rejection(dataset) == "truncated"

    def test_a_deflated_bomb_is_not_inflated(self) -> None:
        dataset = make_dataset()
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data = as_bytes(dataset)
        bomb = zlib.compressobj(9, wbits=-15)
        stream = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(80)) + bomb.flush()
        _, start = dicom_file._read_file_meta(data)
        assert rejection(data[:start] + stream, max_pixels=1_000_000) == "too_large"

    def test_max_pixels_is_judged_from_the_header(self) -> None:
        assert rejection(make_dicom(), max_pixels=72 * 64 - 1) == "too_large"
        assert read_radiograph(make_dicom(), max_pixels=72 * 64).pixels.size == 72 * 64

    def test_extended_jpeg_without_its_codec_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            decoders.PINNED, JPEGExtended12Bit, decoders.Decoder("absent", ("absent",))
        )
        with pytest.raises(ImageRejected, match=r"cxr-embed\[gpl-codecs\]") as caught:
            decoders.require_decoder(JPEGExtended12Bit)
        assert caught.value.reason == "unsupported_transfer_syntax"


class TestViews:
    @pytest.mark.parametrize("view", ["AP", "PA", None])
    def test_frontal_keeps(self, view: str | None) -> None:
        assert read_radiograph(make_dicom(ViewPosition=view), views="frontal").view_position == view

    @pytest.mark.parametrize("view", ["LL", "LATERAL", ""])
    def test_frontal_skips(self, view: str) -> None:
        with pytest.raises(ImageSkipped) as caught:
            read_radiograph(make_dicom(ViewPosition=view), views="frontal")
        assert caught.value.reason == "not_frontal"


def test_stages_are_the_contracts() -> None:
    assert {str(stage) for stage in Stage} == {"read", "decode", "render", "infer", "write"}
