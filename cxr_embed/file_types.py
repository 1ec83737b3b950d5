"""The type of an image file by its first bytes, and its contents where it is compressed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import TypeAlias

from cxr_embed.errors import ImageRejected

FILE_TYPES = ("auto", "dicom", "png", "jpeg")

Buffer: TypeAlias = bytes | bytearray | memoryview

# The bytes that `sniff` looks at, where a file has so many.
SNIFFED_BYTES = 132

# A file is judged by so many of its first bytes before the rest is read.
PREFIX_BYTES = 64 << 10

_INFLATE_BYTES = 1 << 20

# Only these are cut from a file name: 1.2.840.113619.4 is a whole name.
IMAGE_NAME = re.compile(r"\.(?:dcm|dicom|dic|ima|png|jpg|jpeg)(?:\.gz)?$", re.IGNORECASE)

# Names that images do not have. Folders of images hold such files too.
OTHER_NAME = re.compile(
    r"\.(?:txt|md|rst|csv|tsv|json|jsonl|xml|ya?ml|toml|html?|pdf|docx?|xlsx?|log|ini|cfg|py|ipynb|"
    r"sh|zip|tar|tgz|7z|parquet|npy|npz|h5|pkl|sqlite|db|sha256|md5|tfrecords?|nii|mp4|lnk|url)"
    r"(?:\.gz)?$",
    re.IGNORECASE,
)

_GZIP, _RAW = zlib.MAX_WBITS | 16, -zlib.MAX_WBITS

_VR = re.compile(rb"[A-Z]{2}")


def sniff(data: Buffer) -> str | None:
    """Returns `dicom`, `png`, `jpeg` or `gzip`, or None for anything else.

    Args:
        data: the file's first bytes, `SNIFFED_BYTES` or more where the file has them.
    """
    start = bytes(data[:SNIFFED_BYTES])
    if start[128:132] == b"DICM":
        return "dicom"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "dicom" if _is_bare_dataset(start) else None


def _is_bare_dataset(start: bytes) -> bool:
    """Whether a file without preamble starts with an element of group 0002 or 0008."""
    if len(start) < 16 or start[0:2] not in (b"\x02\x00", b"\x08\x00") or start[3] != 0:
        return False
    if _VR.fullmatch(start[4:6]):
        return True
    return int.from_bytes(start[4:8], "little") <= 1024


def gunzip(data: Buffer, limit: int) -> bytearray:
    """Inflates a gzip file, up to `limit` bytes.

    Raises:
        ImageRejected: `truncated`, `decode_error`, or `too_large` beyond `limit`.
    """
    return _inflate(data, limit, _GZIP)


def gunzip_start(data: Buffer, size: int) -> tuple[bytes, bool]:
    """Inflates the first bytes of a gzip file.

    Args:
        data: the file, or its first bytes.
        size: how many bytes of the contents are wanted.

    Returns:
        At most `size` bytes, fewer where `data` ends early or is damaged; and whether these are
        known to be `SNIFFED_BYTES` or more, or all of the contents.
    """
    start, is_whole = _inflate_start(data, size, _GZIP)
    return start, is_whole or len(start) >= SNIFFED_BYTES


def inflate_raw(data: Buffer, limit: int) -> bytearray:
    """Inflates a raw deflate stream (PS3.5 A.5), up to `limit` bytes; raises as `gunzip`."""
    return _inflate(data, limit, _RAW)


def inflate_raw_start(data: Buffer, size: int) -> bytes:
    """Inflates the first bytes of a raw deflate stream; fewer than `size` where it is damaged."""
    return _inflate_start(data, size, _RAW)[0]


def _inflate_start(data: Buffer, size: int, window_bits: int) -> tuple[bytes, bool]:
    inflater = zlib.decompressobj(window_bits)
    try:
        return inflater.decompress(data, size), inflater.eof
    except zlib.error:
        return b"", False


def _inflate(data: Buffer, limit: int, window_bits: int) -> bytearray:
    inflater, plain = zlib.decompressobj(window_bits), bytearray()
    try:
        # In one call zlib would hold the contents twice at its end.
        for part in _parts(data):
            rest, is_full = part, True
            while (rest or is_full) and not inflater.eof:
                size = min(_INFLATE_BYTES, limit + 1 - len(plain))
                inflated = inflater.decompress(rest, size)
                plain += inflated
                if len(plain) > limit:
                    raise ImageRejected("too_large", f"inflates to more than {limit} bytes")
                rest, is_full = inflater.unconsumed_tail, len(inflated) == size
    except zlib.error as error:
        raise ImageRejected("decode_error", "the deflate stream is damaged") from error
    if not inflater.eof:
        raise ImageRejected("truncated", "the deflate stream ends too early")
    return plain


def _parts(data: Buffer) -> Iterator[Buffer]:
    """Yields `data` in pieces: zlib copies all input that one call has not used."""
    view = memoryview(data)
    return (view[at : at + _INFLATE_BYTES] for at in range(0, len(view), _INFLATE_BYTES))
