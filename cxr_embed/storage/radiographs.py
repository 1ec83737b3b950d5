"""`cxr_embed.read_radiograph`: one radiograph from any place that can be read."""

from __future__ import annotations

import functools

from cxr_embed import storage
from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import image_files
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph


def read_radiograph(
    source: image_files.Source,
    rendering: str = "cxr_foundation",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    views: str = "all",
) -> Radiograph:
    """Reads and renders one radiograph: a DICOM, PNG or JPEG file, or a pydicom Dataset.

    Args:
        source: a path, an address such as `gs://bucket/1.dcm` or `a.zip!/p10/1.dcm`, the file's
            bytes, a binary file, or a pydicom Dataset. Files may be gzip-compressed. A file that
            cannot be a radiograph by its first bytes or by its size is not read whole.
        rendering: for DICOM, `cxr_foundation` (what the published embeddings were made from) or
            `dicom` (PS3.3's greyscale pipeline).
        max_pixels: images with more pixels are rejected from their header.
        views: `all`; or `frontal` to raise `ImageSkipped` where the View Position of a DICOM image
            is present and is neither AP nor PA.

    Returns:
        The radiograph: uint8 or uint16 pixels of shape (rows, columns), bright = dense.

    Raises:
        ImageRejected: the image is not rendered; `stage`, `reason` and `detail` give the cause.
            With the reason `unexpected_error`, `__cause__` is the exception.
        ImageSkipped: only with `views="frontal"`.
        OSError: `source` is a path, an address or a file that cannot be read.
        MachineFault: the machine lacks something that any image needs.
        MemoryError: memory ran out.
        ValueError: `rendering` is unknown.
    """
    if not isinstance(source, str) or not (storage.is_remote(source) or storage.is_member(source)):
        return image_files.read_radiograph(source, rendering, max_pixels=max_pixels, views=views)
    judge = functools.partial(image_files.admit, max_pixels=max_pixels, views=views)
    try:
        data = storage.read_file(source, judge).data
    except storage.BadMember as error:
        raise ImageRejected(error.reason, error.detail) from error
    except storage.FileTooLarge as error:
        raise image_files.too_large(error.limit) from error
    return image_files.read_image(data, rendering=rendering, max_pixels=max_pixels, views=views)
