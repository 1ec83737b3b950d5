"""A second look at some of the images: small pictures as the run rendered them, and headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np

from cxr_embed import storage
from cxr_embed.errors import ImageRejected, ImageSkipped
from cxr_embed.imaging.drawing import shrink, to_8_bit
from cxr_embed.imaging.image_files import read_image
from cxr_embed.report.header_statistics import describe_header

# Longer side in pixels: twice what pages show them at, for screens with fine pixels.
EDGE = 192

_JPEG_QUALITY = 78

GONE = "file is gone"


@dataclass(frozen=True)
class Look:
    """What a second look at one image found.

    Attributes:
        picture: uint8 of shape (rows, columns), its longer side `EDGE`; None where there is none.
        problem: why not, in a few words.
        header: as `header_statistics.describe_header` gives it.
    """

    picture: np.ndarray | None = None
    problem: str = ""
    header: dict[str, str] = field(default_factory=dict)

    @property
    def jpeg(self) -> bytes:
        """The picture as a JPEG file."""
        return encode_jpeg(cast(np.ndarray, self.picture))


def look_at(path: str, rendering: str = "cxr_foundation") -> Look:
    """Reads one image again. It never raises: whatever keeps it from being shown is told."""
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        return Look(problem=GONE)
    except (OSError, ValueError):  # a name that cannot be one of a file
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
    """Looks at many images, some at a time.

    Args:
        paths: of the images.
        rendering: `cxr_foundation` or `dicom`.
        threads: how many at a time. Compressed pixels are decoded in processes of their own.
        watch: shows progress while it hands the looks on.
    """
    with ThreadPoolExecutor(threads) as pool:
        return list(watch(pool.map(lambda path: look_at(path, rendering), paths)))


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Returns an 8-bit grey picture as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()
