"""Reads images again for the report: small pictures in the run's rendering, and headers."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import cv2
import numpy as np

from cxr_embed import storage
from cxr_embed.errors import ImageRejected, ImageSkipped
from cxr_embed.imaging.drawing import shrink, to_8_bit
from cxr_embed.imaging.image_files import read_image
from cxr_embed.report.header_statistics import describe_header

# Longer side in pixels: twice the displayed size, for high-resolution screens.
EDGE = 192

_JPEG_QUALITY = 78

GONE = "file is gone"


@dataclass(frozen=True)
class Look:
    """The picture and the header of one image.

    Attributes:
        picture: uint8 of shape (rows, columns), the longer side is `EDGE`; None if unavailable.
        problem: short reason why there is no picture.
        header: result of `header_statistics.describe_header`.
    """

    picture: np.ndarray | None = None
    problem: str = ""
    header: dict[str, str] = field(default_factory=dict)

    @functools.cached_property
    def data_uri(self) -> str:
        """The picture as a data URI of a JPEG file."""
        jpeg = encode_jpeg(cast(np.ndarray, self.picture))
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


NOT_LOOKED_AT = Look(problem="not looked at")


class Picture(NamedTuple):
    """A picture on a page: row of the embedding, dicom id, path of the image, and its look."""

    row: int
    name: str
    path: str
    look: Look


def look_at(path: str, rendering: str = "cxr_foundation") -> Look:
    """Reads one image. It does not raise for an unusable image; `problem` has the reason."""
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        return Look(problem=GONE)
    except (OSError, ValueError):  # ValueError: not a valid file name
        return Look(problem="cannot be read")
    header = describe_header(data)
    try:
        radiograph = read_image(data, rendering=rendering)
    except (ImageRejected, ImageSkipped) as error:
        return Look(problem=error.reason, header=header)
    return Look(shrink(to_8_bit(radiograph.pixels), EDGE, EDGE), header=header)


def look_at_all(
    paths: Sequence[str],
    rendering: str,
    threads: int,
    watch: Callable[[Iterator[Look]], Iterator[Look]] = lambda looks: looks,
) -> list[Look]:
    """Reads many images in parallel.

    Args:
        paths: paths of the images.
        rendering: `cxr_foundation` or `dicom`.
        threads: number of threads. Compressed pixels are decoded in separate processes.
        watch: yields the looks and displays progress.
    """
    with ThreadPoolExecutor(threads) as pool:
        return list(watch(pool.map(lambda path: look_at(path, rendering), paths)))


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Returns an 8-bit grey picture as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()
