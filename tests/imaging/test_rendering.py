"""The two renderings, curve by curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from plain_rendering import render_plainly

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import rendering
from cxr_embed.imaging.rendering import LookupTable, RenderingAttributes, Window, render

DTYPES = (np.uint8, np.int8, np.uint16, np.int16)


def images(dtype: type) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12))


def big(image: np.ndarray) -> np.ndarray:
    """Repeats an image until it is rendered by look-up table."""
    repeats = (1 << 16) // image.size + 1
    return np.tile(image, (repeats, 1))


def outcome(stored: np.ndarray, attributes: RenderingAttributes, mode: str) -> object:
    try:
        return render(stored, attributes, mode)
    except ImageRejected as rejected:
        return rejected.reason


class TestCxrFoundation:
    @given(st.data())
    def test_equals_the_originals_arithmetic_over_every_pixel(self, data: st.DataObject) -> None:
        stored = data.draw(st.sampled_from(DTYPES).flatmap(images))
        numbers = st.floats(-40_000, 40_000).map(lambda x: round(x, 2))
        widths = st.floats(0.5, 80_000).map(lambda x: round(x, 2))
        listed = st.booleans()
        window = data.draw(st.none() | st.builds(Window, numbers, widths, listed, listed))
        slopes = st.sampled_from([1.0, -1.0, 0.5, 2.25, -3.1])
        rescale = data.draw(st.none() | st.tuples(slopes, numbers))
        monochrome1 = data.draw(st.booleans())
        got = outcome(
            stored,
            RenderingAttributes(monochrome1=monochrome1, window=window, rescale=rescale),
            "cxr_foundation",
        )
        plain_window = window and (
            [window.centre] if window.centre_is_listed else window.centre,
            [window.width] if window.width_is_listed else window.width,
        )
        expected = render_plainly(
            stored, window=plain_window, rescale=rescale, monochrome1=monochrome1
        )
        if isinstance(got, str):
            assert got == "constant_image"
            assert expected.min() == expected.max()
        else:
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)

    def test_a_listed_window_is_cut_to_integers_and_a_single_one_is_not(self) -> None:
        stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
        single = render(stored, RenderingAttributes(window=Window(100.9, 50.9)))
        listed = render(stored, RenderingAttributes(window=Window(100.9, 50.9, True, True)))
        np.testing.assert_array_equal(single, render_plainly(stored, window=(100.9, 50.9)))
        np.testing.assert_array_equal(listed, render_plainly(stored, window=(100, 50)))
        assert (single != listed).any()

    def test_eight_bit_images_are_not_stretched(self) -> None:
        stored = np.arange(100, 200, dtype=np.uint8).reshape(10, 10)
        pixels = render(stored, RenderingAttributes())
        assert (pixels.min(), pixels.max()) == (100, 199)

    def test_a_window_makes_eight_bit_images_sixteen_bit(self) -> None:
        stored = np.arange(100, 200, dtype=np.uint8).reshape(10, 10)
        pixels = render(stored, RenderingAttributes(window=Window(150, 100)))
        assert (pixels.dtype, pixels.min(), pixels.max()) == (np.uint16, 0, 65535)

    def test_inverting_the_lowest_signed_value_does_not_overflow(self) -> None:
        stored = np.array([[-32768, 0], [16, 32767]], np.int16)
        pixels = render(stored, RenderingAttributes(monochrome1=True))
        assert pixels.tolist() == [[65535, 32767], [32751, 0]]

    @pytest.mark.parametrize("width", [-5.0, 0.0, 1.0])
    def test_a_window_that_leaves_one_value_is_a_constant_image(self, width: float) -> None:
        stored = np.arange(100, dtype=np.uint16).reshape(10, 10)
        assert outcome(stored, RenderingAttributes(window=Window(50, width)), "cxr_foundation") == (
            "constant_image"
        )

    def test_a_voi_lut_and_an_inverse_shape_are_not_used(self) -> None:
        stored = np.arange(100, dtype=np.uint16).reshape(10, 10)
        table = LookupTable(0, np.arange(100, dtype=np.uint16)[::-1], 16)
        plain = render(stored, RenderingAttributes())
        np.testing.assert_array_equal(
            render(stored, RenderingAttributes(voi_lut=table, inverse=True)), plain
        )

    def test_32_bit_integers_need_a_window_or_rescale(self) -> None:
        stored = np.arange(100, dtype=np.uint32).reshape(10, 10) * 1000
        assert outcome(stored, RenderingAttributes(), "cxr_foundation") == "unsupported_bit_depth"
        windowed = render(stored, RenderingAttributes(window=Window(50_000, 20_000)))
        np.testing.assert_array_equal(windowed, render_plainly(stored, window=(50_000, 20_000)))


class TestDicom:
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)

    def shown(self, **attributes: object) -> np.ndarray:
        return render(self.stored, RenderingAttributes(**attributes), "dicom").ravel()  # type: ignore[arg-type]

    def test_without_a_voi_the_range_of_the_pixels_is_spread(self) -> None:
        pixels = self.shown()
        assert pixels[[0, 51, 255]].tolist() == [0, 13107, 65535]

    def test_padding_is_left_out_of_the_range(self) -> None:
        pixels = self.shown(padding=(0, 55))
        assert pixels[:57].max() == 0
        assert pixels[255] == 65535

    def test_linear_follows_c_11_2_1_2_1(self) -> None:
        pixels = self.shown(window=Window(128, 100))
        # ymin up to c - 0.5 - (w - 1) / 2 = 78, ymax above 177
        assert (pixels[78], pixels[177]) == (0, 65535)
        assert pixels[127] == pytest.approx(((127 - 127.5) / 99 + 0.5) * 65535, abs=0.51)

    def test_linear_exact_follows_c_11_2_1_3_2(self) -> None:
        pixels = self.shown(window=Window(128, 100), voi_function="LINEAR_EXACT")
        assert (pixels[78], pixels[128], pixels[178]) == (0, 32768, 65535)

    def test_sigmoid_follows_c_11_2_1_3_1(self) -> None:
        pixels = self.shown(window=Window(128, 100), voi_function="SIGMOID")
        assert pixels[128] == 32768
        assert pixels[153] == pytest.approx(65535 / (1 + np.exp(-1)), abs=0.51)

    def test_a_voi_lut_wins_over_a_window(self) -> None:
        table = LookupTable(10, np.array([0, 100, 4095], np.uint16), 12)
        pixels = self.shown(voi_lut=table, window=Window(128, 100))
        assert pixels[:13].tolist() == [0] * 11 + [1600, 65535]
        assert (pixels[13:] == 65535).all()

    def test_a_modality_lut_wins_over_rescale(self) -> None:
        table = LookupTable(0, np.arange(256, dtype=np.uint16)[::-1], 16)
        pixels = self.shown(modality_lut=table, rescale=(2.0, 1.0))
        assert (pixels[0], pixels[255]) == (65535, 0)

    def test_monochrome1_and_inverse_shape_are_one_inversion(self) -> None:
        upright = self.shown()
        for attributes in (
            {"monochrome1": True},
            {"inverse": True},
            {"monochrome1": True, "inverse": True},
        ):
            np.testing.assert_array_equal(self.shown(**attributes), 65535 - upright)

    @pytest.mark.parametrize(
        ("function", "width"),
        [("LINEAR", 0.5), ("", 0.0), ("LINEAR_EXACT", 0.0), ("SIGMOID", -1.0), ("CUBIC", 10.0)],
    )
    def test_windows_against_the_rules_are_rejected(self, function: str, width: float) -> None:
        attributes = RenderingAttributes(window=Window(128, width), voi_function=function)
        assert outcome(self.stored, attributes, "dicom") == "bad_window"

    def test_a_linear_window_of_width_one_is_a_step(self) -> None:
        pixels = self.shown(window=Window(100, 1))
        assert pixels[99] == 0
        assert pixels[100] == 65535


@pytest.mark.parametrize("mode", ["cxr_foundation", "dicom"])
class TestLookUp:
    @given(data=st.data())
    def test_the_table_gives_what_arithmetic_over_the_pixels_gives(
        self, mode: str, data: st.DataObject
    ) -> None:
        stored = data.draw(st.sampled_from(DTYPES).flatmap(images))
        table = LookupTable(
            data.draw(st.integers(-50, 50)), np.array([7, 1, 300, 250, 9], np.uint16), 16
        )
        attributes = data.draw(
            st.builds(
                RenderingAttributes,
                monochrome1=st.booleans(),
                modality_lut=st.none() | st.just(table),
                rescale=st.none() | st.just((-0.7, 12.0)),
                window=st.none() | st.just(Window(40.5, 90.25)),
                voi_function=st.sampled_from(["", "SIGMOID"]),
                padding=st.none() | st.just((3, 17)),
            )
        )
        small, large = outcome(stored, attributes, mode), outcome(big(stored), attributes, mode)
        if isinstance(small, str):
            assert large == small
        else:
            np.testing.assert_array_equal(large[: len(stored)], small)  # type: ignore[index]


def test_rescaled_values_that_overflow_are_rejected() -> None:
    stored = np.arange(100, dtype=np.uint16).reshape(10, 10)
    attributes = RenderingAttributes(rescale=(1e308, 1e308))
    assert outcome(stored, attributes, "dicom") == "decode_error"
    assert rendering.render(stored, RenderingAttributes(rescale=(0.1, -5.0))).max() == 65535
