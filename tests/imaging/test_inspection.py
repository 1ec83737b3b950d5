"""What an inspection reports of a file, and what it must not report."""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, as_bytes, lut_item, make_dataset, make_dicom
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from cxr_embed.imaging import drawing
from cxr_embed.imaging.inspection import Inspection, inspect_file
from cxr_embed.imaging.rendering import RENDERINGS


def values(found: Inspection) -> dict[str, str]:
    return {element.name: element.value for element in found.elements}


def picture(pixels: np.ndarray = GRADIENT, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


class TestElements:
    def test_names_numbers_and_values(self) -> None:
        found = inspect_file(
            make_dicom(
                WindowCenter=[2048.5, 1],
                WindowWidth=[4096, 2],
                VOILUTSequence=[lut_item(0, [1, 2], 12)],
            )
        )
        assert found.file_type == "DICOM"
        assert found.transfer_syntax == "Explicit VR Little Endian (1.2.840.10008.1.2.1)"
        assert found.decoder == "none needed"
        shown = values(found)
        assert shown["Photometric Interpretation"] == "MONOCHROME2"
        assert shown["Window Center"] == "2048.5, 1"
        assert shown["VOI LUT Sequence"] == "2 entries of 12 bits, the first for 0"
        assert shown["Pixel Data"] == "9,216 bytes"
        assert found.elements[0].number == "(0008,0060)"
        assert "Rescale Slope" in found.absent
        assert found.patient == []

    def test_the_pinned_decoder_is_named(self) -> None:
        dataset = make_dataset()
        dataset.compress(JPEG2000Lossless)
        found = inspect_file(as_bytes(dataset))
        assert "JPEG 2000" in found.transfer_syntax
        assert found.decoder.startswith("pylibjpeg 2")
        assert "pylibjpeg-openjpeg" in found.decoder

    @pytest.mark.parametrize(
        ("elements", "name", "shown"),
        [
            ({"ViewPosition": "GEHEIM"}, "View Position", "(not a defined term)"),
            ({"ViewPosition": ""}, "View Position", "(empty)"),
            ({"Modality": "GEHEIM"}, "Modality", "(not a defined term)"),
            ({"VOILUTFunction": "GEHEIM"}, "VOI LUT Function", "(not a defined term)"),
            ({"VOILUTFunction": "sigmoid"}, "VOI LUT Function", "SIGMOID"),
            ({"WindowCenter": ""}, "Window Center", "(empty)"),
            ({"WindowWidth": list(range(1, 10))}, "Window Width", "1, 2, 3, 4, 5, 6 and 3 more"),
            ({"VOILUTSequence": []}, "VOI LUT Sequence", "(empty)"),
        ],
    )  # fmt: skip
    def test_text_is_shown_only_where_it_is_defined(
        self, elements: dict[str, Any], name: str, shown: str
    ) -> None:
        assert values(inspect_file(make_dicom(**elements)))[name] == shown

    def test_text_where_a_number_was_due(self) -> None:
        data = make_dicom(WindowCenter="12345678", WindowWidth=9).replace(b"12345678", b"GEHEIM  ")
        assert values(inspect_file(data))["Window Center"] == "(not a number)"

    def test_a_transfer_syntax_that_nobody_knows(self) -> None:
        dataset = make_dataset()
        dataset.compress(JPEG2000Lossless)
        data = as_bytes(dataset).replace(b"1.2.840.10008.1.2.4.90", b"1.2.826.0.1.3680043.11")
        found = inspect_file(data)
        assert found.transfer_syntax == "(not a known UID)"
        assert found.decoder == "none"

    def test_patient_elements_are_read_on_demand_only(self) -> None:
        data = make_dicom(PatientName="Doe^Jane\x1b[2J", PatientID="4711", StudyDate="20200101")
        assert "4711" not in repr(inspect_file(data))
        found = inspect_file(data, with_patient=True)
        shown = {element.name: element.value for element in found.patient}
        assert shown["Patient's Name"] == "Doe^Jane?[2J"  # a terminal must not obey it
        assert (shown["Patient ID"], shown["Study Date"]) == ("4711", "20200101")


class TestSteps:
    def test_of_both_renderings(self) -> None:
        found = inspect_file(
            make_dicom(
                PhotometricInterpretation="MONOCHROME1", BitsStored=16,
                RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=2048, WindowWidth=4096,
            )
        )  # fmt: skip
        original, standard = found.rendered
        assert [r.rendering for r in found.rendered] == list(RENDERINGS)
        assert list(original.steps) == [
            "stored values 0..36856",
            "rescale, 1 x value - 1024: -1024..35832",
            "window 2048 / 4096, LINEAR, 0..4095 onto 0..65535",
            "inverted (MONOCHROME1): 65535 - value",
            "fractions cut off",
        ]
        assert list(standard.steps) == [
            "stored values 0..36856",
            "rescale, 1 x value - 1024: -1024..35832",
            "window 2048 / 4096, LINEAR, onto 0..65535",
            "inverted (MONOCHROME1): 65535 - value",
        ]

    @pytest.mark.parametrize(
        ("pixels", "elements", "steps"),
        [
            (GRADIENT // 256, {}, ["stored values 0..143", "stretched from 0..143 to 0..65535"]),
            (
                (GRADIENT // 256).astype(np.uint8), {},
                ["stored values 0..143", "8-bit, not stretched"],
            ),
            (
                (GRADIENT // 8).astype(np.int16) - 100, {},
                ["stored values -100..4507", "shifted by 100 to start at 0",
                 "stretched from 0..4607 to 0..65535"],
            ),
            (
                GRADIENT, {"RescaleSlope": 2.5, "RescaleIntercept": 0.5},
                ["stored values 0..36856", "rescale, 2.5 x value + 0.5: 0.5..92140.5",
                 "shifted by -0.5 to start at 0", "scaled down from 92140 to 65535",
                 "fractions cut off"],
            ),
        ],
    )  # fmt: skip
    def test_of_the_original(
        self, pixels: np.ndarray, elements: dict[str, Any], steps: list[str]
    ) -> None:
        assert list(inspect_file(make_dicom(pixels, **elements)).rendered[0].steps) == steps

    @pytest.mark.parametrize(
        ("elements", "step"),
        [
            ({}, "no VOI: 0..36856, spread over 0..65535"),
            (
                {"PixelPaddingValue": 0},
                "no VOI: 8..36856, padding 0 left out, spread over 0..65535",
            ),
            (
                {"VOILUTSequence": [lut_item(0, [1, 2, 900], 12)]},
                "VOI LUT, 3 entries of 12 bits, the first for 0, onto 0..65535",
            ),
            (
                {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
                "inverted (MONOCHROME1, INVERSE): 65535 - value",
            ),
            (
                {"WindowCenter": 9, "WindowWidth": 5, "VOILUTFunction": "SIGMOID"},
                "window 9 / 5, SIGMOID, onto 0..65535",
            ),
            (
                {"ModalityLUTSequence": [lut_item(0, [5, 900], 12)]},
                "Modality LUT, 2 entries of 12 bits, the first for 0: 5..900",
            ),
        ],
    )
    def test_of_the_standard(self, elements: dict[str, Any], step: str) -> None:
        rendered = inspect_file(make_dicom(**elements)).rendered[1]
        assert step in rendered.steps

    def test_a_rejection_keeps_the_steps_before_it(self) -> None:
        rendered = inspect_file(make_dicom(np.full((9, 9), 7, np.uint16))).rendered[0]
        assert rendered.rejected is not None
        assert rendered.rejected.reason == "constant_image"
        assert list(rendered.steps) == ["stored values 7"]


class TestOtherFiles:
    def test_gzip_is_seen_through(self) -> None:
        found = inspect_file(gzip.compress(make_dicom()))
        assert found.file_type == "DICOM, gzip-compressed"
        assert values(found)["Rows"] == "72"
        assert all(rendered.radiograph for rendered in found.rendered)

    def test_a_picture_is_the_same_in_both_renderings(self) -> None:
        found = inspect_file(picture())
        assert (found.file_type, found.elements, len(found.rendered)) == ("PNG", [], 1)
        assert list(found.rendered[0].steps)[1:] == [
            "grey values 0..36856", "stretched from 0..36856 to 0..65535",
        ]  # fmt: skip

    def test_what_is_done_to_a_colour_photograph(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        colour = np.dstack([GRADIENT % 251, GRADIENT % 83, GRADIENT % 9]).astype(np.uint8)
        steps = inspect_file(picture(colour, "JPEG", exif=exif)).rendered[0].steps
        assert steps[0] == "pixels of mode RGB, as Pillow names it"
        assert "turned upright by EXIF Orientation" in steps
        assert any(step.startswith("to 8-bit grey") for step in steps)
        assert steps[-1] == "8-bit, not stretched"

    @pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 500])
    def test_what_is_no_image(self, data: bytes) -> None:
        found = inspect_file(data)
        assert found.file_type == "unknown"
        assert [r.rejected is not None for r in found.rendered] == [True]

    @pytest.mark.parametrize("kept", [140, 200, 300, 500, 1000])
    def test_a_file_that_ends_anywhere(self, kept: int) -> None:
        assert all(rendered.rejected for rendered in inspect_file(make_dicom()[:kept]).rendered)

    def test_pydicom_stays_silent_meanwhile_and_speaks_up_afterwards(self) -> None:
        import pydicom.misc

        data = make_dicom(SpecificCharacterSet="GEHEIM")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inspect_file(data, with_patient=True)
        assert caught == []
        with pytest.warns(UserWarning, match="loud"):
            pydicom.misc.warn_and_log("loud")


class TestDrawing:
    wide = np.tile(np.arange(2000, dtype=np.uint16) * 32, (1000, 1))

    def sheet(self, *panels: drawing.Panel, height: int = 400) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(drawing.draw_png(panels, height))))

    def test_pictures_stand_side_by_side_with_their_words(self) -> None:
        panel = drawing.Panel("title", "caption", self.wide, ["1. a step", "2. another"])
        sheet = self.sheet(panel, panel)
        rows, columns, _ = sheet.shape
        assert columns == 2 * 800 + 3 * 20
        assert 400 < rows < 800
        ramp = sheet[300, 20:820, 0].astype(int)
        assert (np.diff(ramp) >= 0).all()
        assert ramp[0] < 3
        assert ramp[-1] > 245
        np.testing.assert_array_equal(sheet[300, 840:1640], sheet[300, 20:820])

    def test_small_pictures_become_squares(self) -> None:
        tiny = np.array([[0, 255], [255, 0]], np.uint8)
        sheet = self.sheet(drawing.Panel("t", "c", tiny))
        top, left = 20 + 52, 20
        assert sheet[top + 5, left + 5].tolist() == [0, 0, 0]
        assert sheet[top + 5, left + 235].tolist() == [255, 255, 255]

    def test_a_rejection_has_words_in_its_place(self) -> None:
        sheet = self.sheet(drawing.Panel("t", "rejected: bad_window", None, ["why " * 60]))
        assert sheet.shape[0] < 600

    @pytest.mark.parametrize("shape", [(1, 9000), (9000, 1), (2, 2)])
    def test_odd_shapes_stay_within_bounds(self, shape: tuple[int, int]) -> None:
        pixels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
        rows, columns, _ = self.sheet(drawing.Panel("t", "c", pixels)).shape
        assert rows < 1000
        assert columns < 1000

    def test_a_histogram_of_text(self) -> None:
        pixels = np.repeat(np.array([0, 0, 100, 200, 255], np.uint8), 40).reshape(20, 10)
        bars = drawing.text_histogram(pixels, 16)
        assert len(bars) == 16
        assert (bars[0], bars[1], bars[6], bars[12], bars[15]) == ("█", " ", "█", "█", "█")

    def test_blocks_for_a_terminal(self) -> None:
        cells = drawing.block_rows([self.wide, self.wide], 30, 50)
        assert {len(row) for row in cells} == {64}
        assert len(cells) == 8  # 30 columns wide, so 15 pixels high, two in a character
        upper = [cell[0] for cell in cells[2]]
        assert (upper[0] < 10, upper[29] > 200) == (True, True)
        assert upper[30:32] == [0, 0]


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG3_J2KI.dcm"])
def test_real_radiographs(name: str, real_radiographs: dict[str, Path]) -> None:
    found = inspect_file(real_radiographs[name].read_bytes())
    assert all(r.radiograph for r in found.rendered)
    assert values(found)["Photometric Interpretation"] == "MONOCHROME1"
