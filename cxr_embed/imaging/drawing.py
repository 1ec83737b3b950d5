"""Draws radiographs: panels in a PNG, blocks in a terminal, and a histogram as text."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 20
_TEXT_SIZE = 16
_LINE = 22
_HISTOGRAM_HEIGHT = 60
_LEAST_WIDTH = 380
_LEAST_HEIGHT = 240
_BACKGROUND, _BRIGHT, _DIM, _BAD = (20, 22, 26), (235, 238, 242), (150, 158, 168), (240, 120, 100)
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Panel:
    """One picture with lines of text.

    Attributes:
        title: the first line, above the picture.
        caption: a line below the title.
        pixels: uint8 or uint16 of shape (rows, columns); None where there is nothing to show.
        notes: lines below the picture; in its place where there is none.
    """

    title: str
    caption: str
    pixels: np.ndarray | None
    notes: Sequence[str] = ()


def draw_png(panels: Sequence[Panel], height: int) -> bytes:
    """Draws panels side by side.

    Args:
        panels: from left to right.
        height: of the pictures; larger ones are shrunk. Those that are small beside the others are
            enlarged by a whole factor, each pixel a square.

    Returns:
        The bytes of an 8-bit RGB PNG.
    """
    shrunk = [
        None if panel.pixels is None else shrink(to_8_bit(panel.pixels), height, 2 * height)
        for panel in panels
    ]
    tallest = max([_LEAST_HEIGHT, *(picture.shape[0] for picture in shrunk if picture is not None)])
    columns = [
        _draw_panel(panel, None if picture is None else _enlarge(picture, tallest), tallest)
        for panel, picture in zip(panels, shrunk, strict=True)
    ]
    width = sum(column.width for column in columns) + _MARGIN * (len(columns) + 1)
    sheet = Image.new(
        "RGB", (width, max(column.height for column in columns) + 2 * _MARGIN), _BACKGROUND
    )
    left = _MARGIN
    for column in columns:
        sheet.paste(column, (left, _MARGIN))
        left += column.width + _MARGIN
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _draw_panel(panel: Panel, picture: np.ndarray | None, height: int) -> Image.Image:
    """Draws one panel, its picture's frame `height` high for a picture of any height."""
    picture_width = _LEAST_WIDTH if picture is None else picture.shape[1]
    width = max(picture_width, _LEAST_WIDTH)
    notes = [line for note in panel.notes for line in _wrap(note, width - 24)]
    top = 2 * _LINE + 8
    bottom = top + height + _HISTOGRAM_HEIGHT + 12
    image = Image.new("RGB", (width, bottom + len(notes) * _LINE), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    _write(draw, 0, panel.title, _BRIGHT)
    _write(draw, _LINE, panel.caption, _BAD if picture is None else _DIM)
    if picture is None or panel.pixels is None:
        draw.rectangle((0, top, width - 1, top + height - 1), outline=_DIM)
        for index, line in enumerate(notes):
            _write(draw, top + 12 + index * _LINE, line, _DIM, left=12)
        return image
    image.paste(Image.fromarray(picture), (0, top))
    _draw_histogram(draw, panel.pixels, top + height + 6, picture_width)
    for index, line in enumerate(notes):
        _write(draw, bottom + index * _LINE, line, _DIM)
    return image


def _draw_histogram(draw: ImageDraw.ImageDraw, pixels: np.ndarray, top: int, width: int) -> None:
    bins = max(16, min(256, width // 2))
    heights = _bar_heights(pixels, bins)
    bottom = top + _HISTOGRAM_HEIGHT
    draw.line((0, bottom, width - 1, bottom), fill=_DIM)
    for index, value in enumerate(heights):
        left, right = index * width // bins, (index + 1) * width // bins - 1
        if value:
            bar = max(1, round(value * _HISTOGRAM_HEIGHT))
            draw.rectangle((left, bottom - bar, max(left, right), bottom), fill=_DIM)


def _write(
    draw: ImageDraw.ImageDraw, top: int, text: str, colour: tuple[int, int, int], left: int = 0
) -> None:
    draw.text((left, top), text, fill=colour, font=ImageFont.load_default(_TEXT_SIZE))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, int(width / (_TEXT_SIZE * 0.52))))


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 pixels of the same brightness."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def shrink(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Shrinks an image by area until it fits, keeping its shape; never enlarges it."""
    scale = min(1.0, rows / pixels.shape[0], columns / pixels.shape[1])
    if scale == 1.0:
        return pixels
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cast(np.ndarray, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _enlarge(picture: np.ndarray, rows: int) -> np.ndarray:
    factor = min(rows // picture.shape[0], 2 * rows // picture.shape[1])
    return picture.repeat(factor, 0).repeat(factor, 1) if factor > 1 else picture


def text_histogram(pixels: np.ndarray, bins: int = 64) -> str:
    """Returns a line of bars, from the darkest to the brightest that the pixels' type can hold.

    Bars grow with the square root of the number of pixels, so that small peaks stay visible; the
    darkest and brightest may be cut, where background and bones outnumber all else.
    """
    heights = _bar_heights(pixels, bins)
    top = len(_BARS) - 1
    return "".join(_BARS[max(1, round(value * top))] if value else " " for value in heights)


def _bar_heights(pixels: np.ndarray, bins: int) -> np.ndarray:
    full = int(np.iinfo(pixels.dtype).max) + 1
    counts = np.bincount(pixels.ravel(), minlength=full)
    edges = np.arange(bins) * full // bins
    heights = np.sqrt(np.add.reduceat(counts, edges))
    highest = heights[1:-1].max() or heights.max()
    return cast(np.ndarray, np.minimum(heights / highest, 1.0))


def block_rows(
    pictures: Sequence[np.ndarray], columns: int, rows: int
) -> list[list[tuple[int, int]]]:
    """Shrinks pictures to character cells, side by side.

    Args:
        pictures: uint8 or uint16 of shape (rows, columns), one or more.
        columns: characters across each of them, at most.
        rows: characters down, at most.

    Returns:
        For each row of characters its cells, each the brightness (0..255) of the upper and the
        lower half. Each picture takes `columns` and two black ones behind it.
    """
    shrunk = [shrink(to_8_bit(picture), 2 * rows, columns) for picture in pictures]
    height = max(picture.shape[0] for picture in shrunk)
    height += height % 2
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, columns + 2 - p.shape[1]))) for p in shrunk]
    wide = np.concatenate(padded, axis=1)
    return [
        list(zip(upper.tolist(), lower.tolist(), strict=True))
        for upper, lower in zip(wide[0::2], wide[1::2], strict=True)
    ]
