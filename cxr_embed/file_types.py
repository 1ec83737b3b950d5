"""What a file is, judged by its first bytes."""

from __future__ import annotations

import re
import zlib

from cxr_embed.errors import ImageRejected

FILE_TYPES = ("auto", "dicom", "png", "jpeg")

# Only these are cut from a file name: 1.2.840.113619.4 is a whole name.
IMAGE_NAME = re.compile(r"\.(?:dcm|dicom|dic|ima|png|jpg|jpeg)(?:\.gz)?$", re.IGNORECASE)

# Names that nobody gives an image; such files stand beside images in every real folder.
OTHER_NAME = re.compile(
    r"\.(?:txt|md|rst|csv|tsv|json|jsonl|xml|ya?ml|toml|html?|pdf|docx?|xlsx?|log|ini|cfg|py|ipynb|"
    r"sh|zip|tar|tgz|7z|parquet|npy|npz|h5|pkl|sqlite|db|sha256|md5|tfrecords?|nii|mp4|lnk|url)"
    r"(?:\.gz)?$",
    re.IGNORECASE,
)

_VR = re.compile(rb"[A-Z]{2}")


def sniff(data: bytes) -> str | None:
    """Returns `dicom`, `png`, `jpeg` or `gzip`, or None for anything else.

    Args:
        data: the file's first bytes, 132 or more where the file has them.
    """
    if data[128:132] == b"DICM":
        return "dicom"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "dicom" if _is_bare_dataset(data) else None


def _is_bare_dataset(data: bytes) -> bool:
    """Tells a data set without preamble: a first element of group 0002 or 0008, little endian."""
    if len(data) < 16 or data[0:2] not in (b"\x02\x00", b"\x08\x00") or data[3] != 0:
        return False
    if _VR.fullmatch(data[4:6]):
        return True
    return int.from_bytes(data[4:8], "little") <= 1024


def gunzip(data: bytes, limit: int) -> bytes:
    """Inflates a gzip file, up to `limit` bytes.

    Raises:
        ImageRejected: `truncated`, `decode_error`, or `too_large` beyond `limit`.
    """
    return _inflate(data, limit, zlib.MAX_WBITS | 16)


def inflate_raw(data: bytes, limit: int) -> bytes:
    """Inflates a raw deflate stream (PS3.5 A.5), up to `limit` bytes; raises as `gunzip`."""
    return _inflate(data, limit, -zlib.MAX_WBITS)


def _inflate(data: bytes, limit: int, window_bits: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ImageRejected("decode_error", "the deflate stream is damaged") from error
    if len(plain) > limit:
        raise ImageRejected("too_large", f"inflates to more than {limit} bytes")
    if not inflater.eof:
        raise ImageRejected("truncated", "the deflate stream ends too early")
    return plain
