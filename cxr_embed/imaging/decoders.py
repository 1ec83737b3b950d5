"""Decodes pixels with one pinned decoder for each transfer syntax.

pydicom tries the installed plugins in an order of its own, and their pixels differ: on baseline
JPEG by one grey level. An additional package on a machine would change embeddings unnoticed, so
the plugin is pinned here, and its version is part of an output's fingerprint.
"""

from __future__ import annotations

from cxr_embed.imaging import safe_pydicom  # noqa: F401  must come before pydicom

# isort: split

import importlib.metadata
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging import decoder_process, reduced_jpeg2000
from cxr_embed.imaging.codestream import check_stream, is_cut_short, only_frame
from cxr_embed.imaging.rle import decode_rle

# The version of a distribution that is not installed.
ABSENT = "absent"


class Decoder(NamedTuple):
    """A pydicom decoding plugin, and the distributions whose code decides the pixels."""

    plugin: str
    distributions: tuple[str, ...]


_PILLOW = Decoder("pillow", ("pillow",))
# imagecodecs is tried first: see `cxr_embed.imaging.lossless_jpeg`, `htj2k` and `rle`.
_GDCM = Decoder("gdcm", ("imagecodecs", "python-gdcm"))
_CHARLS = Decoder("pyjpegls", ("pyjpegls",))
_OPENJPEG = Decoder("pylibjpeg", ("pylibjpeg", "pylibjpeg-openjpeg"))
_OPENJPH = Decoder("pylibjpeg", ("imagecodecs", "pylibjpeg", "pylibjpeg-openjpeg"))
_RLE = Decoder("pydicom", ("imagecodecs",))
_LIBJPEG = Decoder("pylibjpeg", ("pylibjpeg", "pylibjpeg-libjpeg"))

NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    }
)
LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})

PINNED: dict[str, Decoder] = {
    JPEGBaseline8Bit: _PILLOW,
    JPEGExtended12Bit: _LIBJPEG,
    JPEGLossless: _GDCM,
    JPEGLosslessSV1: _GDCM,
    JPEGLSLossless: _CHARLS,
    JPEGLSNearLossless: _CHARLS,
    JPEG2000Lossless: _OPENJPEG,
    JPEG2000: _OPENJPEG,
    HTJ2KLossless: _OPENJPH,
    HTJ2KLosslessRPCL: _OPENJPH,
    HTJ2K: _OPENJPH,
    RLELossless: _RLE,
}

# pydicom corrects the signs of JPEG-LS and JPEG 2000 by the stream's own precision, and clears no
# bits above Bits Stored there; of all others it does.
_MAY_USE_HIGH_BITS = frozenset(PINNED) - set(JPEGLSTransferSyntaxes) - set(JPEG2000TransferSyntaxes)

# CharLS rejects a stream without its end, sometimes after ten seconds. The decoder of extended
# JPEG, on the other hand, accepts half of one. The others raise, or crash.
_NEEDS_ITS_END = frozenset({JPEGLSLossless, JPEGLSNearLossless, JPEGExtended12Bit})


def decoder_versions() -> dict[str, str]:
    """Returns the version of each distribution that decodes pixels; `ABSENT` where missing."""
    names = {name for decoder in PINNED.values() for name in decoder.distributions}
    versions = {}
    for name in sorted(names | {"pydicom", "pillow"}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ABSENT
    return versions


def require_decoder(transfer_syntax: str) -> None:
    """Checks that pixels in `transfer_syntax` can be decoded here.

    Raises:
        ImageRejected: `unsupported_transfer_syntax`.
    """
    if transfer_syntax in NATIVE:
        return
    decoder = PINNED.get(transfer_syntax)
    if decoder is None:
        raise ImageRejected("unsupported_transfer_syntax", "no decoder for its Transfer Syntax UID")
    if decoder.plugin not in get_decoder(transfer_syntax).available_plugins:
        raise ImageRejected("unsupported_transfer_syntax", _install_hint(transfer_syntax))


def _install_hint(transfer_syntax: str) -> str:
    if transfer_syntax == JPEGExtended12Bit:
        return "12-bit extended JPEG needs the optional extra: pip install 'cxr-embed[gpl-codecs]'"
    packages = " ".join(PINNED[transfer_syntax].distributions)
    return f"{transfer_syntax} needs the package(s) {packages}, which cannot be imported here"


def decode(
    dataset: Dataset, transfer_syntax: str, cover: tuple[int, int] | None = None
) -> np.ndarray:
    """Decodes a single-frame greyscale image whose header was checked.

    Args:
        dataset: holds the Image Pixel module and Pixel Data.
        transfer_syntax: its UID, one that `require_decoder` accepts.
        cover: JPEG 2000 and HTJ2K are decoded at the lowest resolution with at least so many rows
            and columns; None decodes all whole.

    Returns:
        Stored values of shape (rows, columns), uint or int of Bits Allocated, bits above Bits
        Stored cleared or filled with the sign (PS3.5 8.1.1). May be a read-only view of the file.

    Raises:
        ImageRejected: `truncated`, `decode_error`, `multi_frame` or `too_large`.
        MachineFault: the machine cannot start or feed a decoding process.
    """
    if transfer_syntax in NATIVE:
        return _read_native(dataset, transfer_syntax == ExplicitVRBigEndian)
    return _decode_compressed(dataset, transfer_syntax, cover)


def _decode_compressed(
    dataset: Dataset, transfer_syntax: str, cover: tuple[int, int] | None
) -> np.ndarray:
    frame = only_frame(dataset.PixelData)
    options = _options(dataset)
    check_stream(
        frame, transfer_syntax, options["rows"], options["columns"], options["bits_allocated"] // 8
    )
    if transfer_syntax == RLELossless and (pixels := decode_rle(frame, options)) is not None:
        return _clear_unused_bits(pixels, dataset.BitsStored)
    cut_short = is_cut_short(frame, transfer_syntax)
    if cut_short and transfer_syntax in _NEEDS_ITS_END:
        raise ImageRejected("truncated", "the compressed pixels end too early")
    plugin = PINNED[transfer_syntax].plugin
    if PINNED[transfer_syntax] is _GDCM and options["bits_allocated"] == 8:
        options["bits_stored"] = 8  # with fewer it ends the process
    if cover is not None and transfer_syntax in JPEG2000TransferSyntaxes:
        options["halvings"] = reduced_jpeg2000.halvings(frame, options, cover)
    try:
        array = decoder_process.decode(transfer_syntax, plugin, options, frame)
    except ImageRejected as rejected:
        if cut_short and rejected.reason == "decode_error":
            raise ImageRejected("truncated", "the compressed pixels end too early") from rejected
        raise
    if transfer_syntax in _MAY_USE_HIGH_BITS:
        return _clear_unused_bits(array, dataset.BitsStored)
    return array


def _options(dataset: Dataset) -> dict[str, Any]:
    """Returns pydicom's decoding options."""
    return {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "pixel_representation": int(dataset.PixelRepresentation),
        "pixel_keyword": "PixelData",
    }


def _read_native(dataset: Dataset, big_endian: bool) -> np.ndarray:
    """Stored values, not copied unless bytes have to be swapped or unused bits to be cleared."""
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    dtype = np.dtype(f"{'>' if big_endian else '<'}{kind}{dataset.BitsAllocated // 8}")
    rows, columns = dataset.Rows, dataset.Columns
    wanted = rows * columns * dtype.itemsize
    data = dataset.PixelData
    if len(data) < wanted:
        raise ImageRejected(
            "truncated", f"Pixel Data (7FE0,0010) has {len(data)} bytes of {wanted}"
        )
    if big_endian and dtype.itemsize == 1 and dataset["PixelData"].VR == "OW":
        # Two values to a big-endian word (PS3.5 8.1.1).
        data = np.frombuffer(data, ">u2", len(data) // 2).astype("<u2").tobytes() + data[-1:]
    stored = np.frombuffer(data, dtype, rows * columns).reshape(rows, columns)
    return _clear_unused_bits(
        stored.astype(dtype.newbyteorder("="), copy=False), dataset.BitsStored
    )


def _clear_unused_bits(stored: np.ndarray, bits_stored: int) -> np.ndarray:
    """Returns `stored` itself, unless a bit above `bits_stored` matters (PS3.5 8.1.1)."""
    unused = 8 * stored.dtype.itemsize - bits_stored
    if not unused or not _uses_high_bits(stored, bits_stored):
        return stored
    stored = stored << unused
    stored >>= unused
    return stored


def _uses_high_bits(stored: np.ndarray, bits_stored: int) -> bool:
    if stored.dtype.kind == "u":
        return int(stored.max()) >> bits_stored > 0
    half = 1 << (bits_stored - 1)
    return int(stored.min()) < -half or int(stored.max()) >= half
