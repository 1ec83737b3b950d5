"""Decodes PNG and JPEG to grey pixels with Pillow. Runs in a process of `decoder_process`."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings

import numpy as np
from PIL import ExifTags, Image

from cxr_embed.errors import ImageRejected

# Pillow's modes for one grey channel of more than 8 bits.
_DEEP_GREY_MODES = ("I;16", "I;16B", "I;16L", "I;16N")

# The transposition for each EXIF Orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_picture(
    data: bytes, file_type: str, rows: int, columns: int
) -> tuple[np.ndarray, list[str]]:
    """Decodes a picture to grey.

    16-bit grey stays 16-bit. Everything else becomes 8-bit grey by ITU-R 601 luma, 16-bit colour
    by its upper bytes; transparency is dropped, not blended.

    Args:
        data: the whole file.
        file_type: `png` or `jpeg`.
        rows: as its header gives them, before EXIF Orientation.
        columns: likewise.

    Returns:
        uint8 or uint16 of shape (rows, columns) after EXIF Orientation; and the steps taken.

    Raises:
        ImageRejected: `not_an_image`, `truncated`, `decode_error` or `multi_frame`. The detail
            holds nothing of the file.
    """
    name = file_type.upper()
    Image.MAX_IMAGE_PIXELS = None  # the size has been checked
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[name]) as image:
                if image.size != (columns, rows):
                    raise ImageRejected("decode_error", f"the {name} header gives two sizes")
                if file_type == "png" and getattr(image, "n_frames", 1) > 1:
                    raise ImageRejected("multi_frame", "an animated PNG")
                return _grey(image)
    except (ImageRejected, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise ImageRejected("not_an_image", f"a damaged {name} header") from None
    except Exception as error:  # Pillow raises SyntaxError, OSError, ValueError and more
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError | struct.error)
        raise ImageRejected(
            "truncated" if cut else "decode_error", f"the {name} data is damaged"
        ) from None


def _grey(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    steps = [f"pixels of mode {image.mode}, as Pillow names it"]
    image.load()
    turn = _orientation(image)
    if image.mode not in _DEEP_GREY_MODES and image.mode != "L":
        steps.append("to 8-bit grey (ITU-R 601 luma; transparency dropped)")
        image = image.convert("L")
    if turn is not None:
        steps.append("turned upright by EXIF Orientation")
        image = image.transpose(turn)
    array = np.asarray(image)
    return array.astype(array.dtype.newbyteorder("="), copy=False), steps


def _orientation(image: Image.Image) -> Image.Transpose | None:
    with contextlib.suppress(Exception):  # a picture with damaged EXIF is read as upright
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return None
