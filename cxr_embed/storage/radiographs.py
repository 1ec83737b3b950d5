"""`cxr_embed.read_radiograph`: one radiograph from any place that can be read."""

from __future__ import annotations

import functools
import os
from typing import BinaryIO, TypeAlias, cast

from cxr_embed import storage
from cxr_embed.errors import ImageRejected
from cxr_embed.file_types import PREFIX_BYTES, Buffer
from cxr_embed.imaging import image_files
from cxr_embed.imaging.rendering import require_rendering
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, Radiograph
from cxr_embed.storage.files import Admit

Source: TypeAlias = str | os.PathLike[str] | BinaryIO | Buffer | image_files.Dataset


def read_radiograph(
    source: Source,
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
        The radiograph, uint8 or uint16 pixels of shape (rows, columns), bright = dense.

    Raises:
        ImageRejected: the image is not rendered; `stage`, `reason` and `detail` give the cause.
            With the reason `unexpected_error`, `__cause__` is the exception.
        ImageSkipped: only with `views="frontal"`.
        OSError: `source` is a path, an address or a file that cannot be read.
        MachineFault: the machine lacks something that any image needs.
        MemoryError: memory ran out.
        ValueError: `rendering` is unknown.
    """
    require_rendering(rendering)
    judge = functools.partial(image_files.admit, max_pixels=max_pixels, views=views)
    try:
        if isinstance(source, str | os.PathLike):
            data: Buffer | image_files.Dataset = storage.read_file(os.fspath(source), judge).data
        elif hasattr(source, "read"):
            data = _read_stream(cast(BinaryIO, source), judge)
        else:
            data = source
    except storage.BadMember as error:
        raise ImageRejected(error.reason, error.detail) from error
    except storage.FileTooLarge as error:
        raise image_files.too_large(error.limit) from error
    return image_files.read_image(data, rendering=rendering, max_pixels=max_pixels, views=views)


def _read_stream(file: BinaryIO, admit: Admit) -> bytes:
    """Reads a binary file from where it stands, as `storage.read_file` reads one by its path."""
    prefix = _read_up_to(file, PREFIX_BYTES)
    limit = admit(prefix)
    if len(prefix) < PREFIX_BYTES:
        return prefix
    # Joining two pieces would hold the file twice.
    if getattr(file, "seekable", lambda: False)():
        file.seek(-len(prefix), os.SEEK_CUR)
        prefix = b""
    data = prefix + _read_up_to(file, limit + 1 - len(prefix))
    if len(data) > limit:
        raise image_files.too_large(limit)
    return data


def _read_up_to(file: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes, fewer at the end of the file; a file may give fewer at a time."""
    parts: list[bytes] = []
    while size > 0:
        part = file.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
