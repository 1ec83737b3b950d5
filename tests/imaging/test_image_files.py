"""PNG, JPEG and gzip-ed files to radiographs."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from builders import make_dicom
from PIL import Image

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.image_files import read_image

GREY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 7 + 50


def encoded(image: Image.Image, file_type: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_type, **options)
    return buffer.getvalue()


def rejection(data: bytes, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ImageRejected) as caught:
        read_image(data, *arguments, **options)
    return caught.value.reason


def test_8_bit_grey_png_stays_as_it_is() -> None:
    grey = (GREY % 200 + 20).astype(np.uint8)
    pixels = read_image(encoded(Image.fromarray(grey))).pixels
    np.testing.assert_array_equal(pixels, grey)


def test_16_bit_grey_png_is_stretched_to_the_full_range() -> None:
    pixels = read_image(encoded(Image.fromarray(GREY))).pixels
    expected = np.interp(GREY, (GREY.min(), GREY.max()), (0, 65535)).astype(np.uint16)
    np.testing.assert_array_equal(pixels, expected)


def test_colour_becomes_601_luma() -> None:
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0], colour[1, 1], colour[2, 2] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels = read_image(encoded(Image.fromarray(colour))).pixels
    assert [pixels[i, i] for i in range(3)] == [76, 150, 29]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L"])
def test_other_modes_become_8_bit_grey(mode: str) -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8), (9, 1)))
    radiograph = read_image(encoded(ramp.convert(mode)))
    assert radiograph.pixels.dtype == np.uint8
    assert radiograph.pixels.shape == (9, 50)


def test_jpeg_is_read_upright() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 5, dtype=np.uint8), (16, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    upright = read_image(encoded(ramp, "JPEG", quality=95)).pixels
    turned = read_image(encoded(ramp, "JPEG", quality=95, exif=exif)).pixels
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def test_png_is_read_upright_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = (GREY % 200).astype(np.uint8)
    turned = read_image(encoded(Image.fromarray(grey), exif=exif)).pixels
    np.testing.assert_array_equal(turned, np.rot90(grey, -1))


@pytest.mark.parametrize(
    ("mode", "options"), [("RGB", {"progressive": True}), ("CMYK", {}), ("L", {"quality": 40})]
)
def test_jpegs_of_any_kind_become_8_bit_grey(mode: str, options: dict[str, Any]) -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 5, dtype=np.uint8), (16, 1)))
    radiograph = read_image(encoded(ramp.convert(mode), "JPEG", **options))
    assert radiograph.pixels.dtype == np.uint8
    assert np.abs(radiograph.pixels.astype(int) - np.asarray(ramp)).max() < 12


def test_a_transparent_palette_is_read_by_its_colours() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 250, 10, dtype=np.uint8), (9, 1)))
    pixels = read_image(encoded(ramp.convert("P"), transparency=0)).pixels
    np.testing.assert_array_equal(pixels, np.asarray(ramp))


def test_an_animated_picture_has_more_than_one_frame() -> None:
    frames = [Image.fromarray((GREY % 200).astype(np.uint8)), Image.new("L", (30, 20), 7)]
    assert rejection(encoded(frames[0], save_all=True, append_images=frames[1:])) == "multi_frame"


@pytest.mark.parametrize("file_type", ["PNG", "JPEG"])
def test_bytes_behind_the_end_do_not_matter(file_type: str) -> None:
    data = encoded(Image.fromarray((GREY % 200).astype(np.uint8)), file_type)
    np.testing.assert_array_equal(read_image(data + b"rest").pixels, read_image(data).pixels)


def test_content_decides_and_an_asked_for_type_is_enforced() -> None:
    png = encoded(Image.fromarray(GREY))
    assert read_image(png, "png").pixels.shape == GREY.shape
    for wanted in ("dicom", "jpeg"):
        assert rejection(png, wanted) == "not_an_image"
    assert read_image(make_dicom(), "dicom").pixels.dtype == np.uint16
    assert rejection(make_dicom(), "png") == "not_an_image"


@pytest.mark.parametrize("data", [make_dicom(), encoded(Image.fromarray(GREY))])
def test_gzip_is_opened_first(data: bytes) -> None:
    np.testing.assert_array_equal(read_image(gzip.compress(data)).pixels, read_image(data).pixels)


def test_damaged_pictures_are_rejected() -> None:
    png, jpeg = encoded(Image.fromarray(GREY)), encoded(Image.effect_noise((200, 200), 60), "JPEG")
    assert rejection(png[: len(png) // 2]) in ("truncated", "decode_error")
    assert rejection(jpeg[: len(jpeg) // 2]) == "truncated"
    assert rejection(png[:12]) in ("not_an_image", "truncated", "decode_error")
    assert rejection(gzip.compress(png)[:-30]) == "truncated"
    assert rejection(encoded(Image.new("L", (8, 8), 9))) == "constant_image"


def test_a_picture_that_claims_a_huge_size_is_not_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = (
        struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    idat = zlib.compress(b"\0" * 100)
    body = (
        struct.pack(">I", len(idat))
        + b"IDAT"
        + idat
        + struct.pack(">I", zlib.crc32(b"IDAT" + idat))
    )
    assert rejection(b"\x89PNG\r\n\x1a\n" + chunk + body) == "too_large"


def test_a_gzip_bomb_is_not_inflated() -> None:
    bomb = make_dicom() + bytes(90 << 20)
    assert rejection(gzip.compress(bomb), max_pixels=10_000) == "too_large"
    assert rejection(gzip.compress(bytes(90 << 20))) == "not_an_image"
