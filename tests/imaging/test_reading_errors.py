"""A damaged file, an error in this program and a machine's fault are three things."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from builders import GRADIENT, make_dataset, make_dicom
from PIL import Image

from cxr_embed import read_radiograph
from cxr_embed.cli import terminal
from cxr_embed.errors import ImageRejected, MachineFault
from cxr_embed.imaging import dicom, image_files, rendering
from cxr_embed.imaging.image_files import read_image
from cxr_embed.imaging.reading_errors import while_parsing, while_rendering
from cxr_embed.outcomes import FAILURE_REASONS, Stage

SECRET = "Doe^Jane"


def break_rendering(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Puts an error into the code that runs once the pixels are decoded."""

    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setitem(rendering.RENDERINGS, "cxr_foundation", broken)
    monkeypatch.setattr(image_files, "look_up", broken)


def deep_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    yield
    terminal._show_debugging(False)


class TestRendering:
    @pytest.mark.parametrize(
        ("data", "module"),
        [
            (make_dicom(), "cxr_embed.imaging.rendering"),
            (deep_png(), "cxr_embed.imaging.image_files"),
        ],
        ids=["dicom", "png"],
    )
    def test_an_unknown_exception_is_an_error_of_this_program(
        self, data: bytes, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error = IndexError(SECRET)
        break_rendering(monkeypatch, error)
        with pytest.raises(ImageRejected) as caught:
            read_image(data)
        rejected = caught.value
        assert (rejected.reason, rejected.stage) == ("unexpected_error", Stage.RENDER)
        assert rejected.detail.startswith(f"IndexError at {module}:")
        assert rejected.detail.rpartition(":")[2].isdigit()
        assert SECRET not in str(rejected)
        assert rejected.__cause__ is error

    def test_it_asks_for_a_report(self) -> None:
        assert "please report it" in FAILURE_REASONS["unexpected_error"].meaning

    @pytest.mark.usefixtures("logging_as_before")
    @pytest.mark.parametrize(("verbosity", "is_shown"), [(0, False), (1, True)])
    def test_verbosity_1_shows_the_traceback(
        self,
        verbosity: int,
        is_shown: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        break_rendering(monkeypatch, ZeroDivisionError("by zero"))
        terminal.set_up_logging(verbosity)
        with pytest.raises(ImageRejected):
            read_image(make_dicom())
        assert ("Traceback (most recent call last)" in capsys.readouterr().err) is is_shown

    def test_a_caller_can_log_it(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        break_rendering(monkeypatch, ZeroDivisionError("by zero"))
        with caplog.at_level(logging.DEBUG, "cxr_embed"), pytest.raises(ImageRejected):
            read_image(make_dicom())
        assert "ZeroDivisionError: by zero" in caplog.text

    def test_stated_rejections_stay_as_they_are(self) -> None:
        with pytest.raises(ImageRejected) as caught:
            read_image(make_dicom(np.full((9, 9), 7, np.uint16)))
        assert caught.value.reason == "constant_image"

    def test_no_text_of_the_file_reaches_the_rendering(self) -> None:
        dataset = make_dataset(VOILUTFunction="DOE JANE", WindowCenter=900, WindowWidth=100)
        attributes = dicom.rendering_attributes_of(dataset, "dicom")
        assert attributes.voi_function == "UNDEFINED"
        with pytest.raises(ImageRejected, match="not a defined term"):
            read_radiograph(dataset, "dicom")


class TestMemory:
    @pytest.mark.parametrize("data", [make_dicom(), deep_png()], ids=["dicom", "png"])
    def test_running_out_of_it_is_no_fault_of_the_image(
        self, data: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        break_rendering(monkeypatch, MemoryError())
        with pytest.raises(MemoryError):
            read_image(data)

    def test_opencv_has_an_error_of_its_own_for_it(self) -> None:
        error = cv2.error("Insufficient memory")
        error.code = cv2.Error.StsNoMem
        with pytest.raises(MemoryError), while_rendering():
            raise error


class TestParsing:
    def test_pydicoms_exceptions_are_damage_and_quote_nothing(self) -> None:
        with pytest.raises(ImageRejected) as caught, while_parsing("DICOM structure"):
            raise ValueError(SECRET)
        assert caught.value.reason == "decode_error"
        assert caught.value.detail == "damaged DICOM structure (ValueError)"
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    def test_an_os_error_of_pydicoms_is_damage(self) -> None:
        with pytest.raises(ImageRejected, match="OSError"), while_parsing("DICOM structure"):
            raise OSError("No tag to read at file position 0x0010")

    def test_what_the_machine_lacks_is_not(self) -> None:
        with pytest.raises(MachineFault, match="file handles"), while_parsing("DICOM structure"):
            raise OSError(errno.EMFILE, "Too many open files")
