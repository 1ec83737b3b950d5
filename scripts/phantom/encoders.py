"""Writing pixels in every transfer syntax that the installed packages can encode."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

SYNTAXES: dict[str, uid.UID] = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big_endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg": uid.JPEGBaseline8Bit,
    "jpeg_extended": uid.JPEGExtended12Bit,
    "jpeg_lossless": uid.JPEGLosslessSV1,
    "jpeg_lossless_p14": uid.JPEGLossless,
    "jpegls": uid.JPEGLSLossless,
    "jpegls_near": uid.JPEGLSNearLossless,
    "j2k_lossless": uid.JPEG2000Lossless,
    "j2k": uid.JPEG2000,
    "htj2k": uid.HTJ2KLossless,
}
# Known, but nothing that the project installs encodes them.
_UNWRITTEN = {
    "jpeg_extended": "GDCM writes its 16-bit DCT stream with a precision of 16, which the standard "
    "does not allow, and no other package encodes 12-bit JPEG",
}
WRITABLE = tuple(name for name in SYNTAXES if name not in _UNWRITTEN)
LOSSY = ("jpeg", "jpegls_near", "j2k")
# Syntaxes that store one depth only.
FIXED_BITS = {"jpeg": 8}
# Shares of a mixed folder. The header table does not tell the syntax, so these are a judgement:
# mostly what archives hold, and a little of everything so that a mixed folder tries it all.
MIX = {
    "explicit": 30, "implicit": 15, "jpeg_lossless": 14, "j2k_lossless": 12, "jpegls": 6, "rle": 5,
    "jpeg": 5, "j2k": 4, "jpeg_lossless_p14": 3, "deflated": 2, "jpegls_near": 2, "big_endian": 2,
}  # fmt: skip
_METHODS = {"jpeg": "ISO_10918_1", "jpegls_near": "ISO_14495_1", "j2k": "ISO_15444_1"}
_QUALITY, _NEAR, _J2K_RATIO, _J2K_SMALLEST = 92, 2, 12, 32


class NoEncoder(ValueError):
    """No installed package writes the wanted transfer syntax, or not for this image."""


def syntax_name(wanted: str) -> str:
    """The short name of a transfer syntax given by short name or UID.

    Raises:
        ValueError: It is neither.
        NoEncoder: It is known, but nothing here can encode it.
    """
    names = {str(value): name for name, value in SYNTAXES.items()}
    name = names.get(wanted, wanted)
    if name not in SYNTAXES:
        raise ValueError(f"unknown transfer syntax {wanted!r}; choose from {', '.join(SYNTAXES)}")
    if name in _UNWRITTEN:
        raise NoEncoder(
            f"cannot write transfer syntax {name} ({SYNTAXES[name]}): {_UNWRITTEN[name]}"
        )
    return name


def draw_syntax(rng: np.random.Generator) -> str:
    """A short name, drawn in the shares of a mixed folder."""
    shares = np.array(list(MIX.values()), dtype=float)
    return str(rng.choice(list(MIX), p=shares / shares.sum()))


def add_pixels(ds: Dataset, pixels: NDArray[np.integer], name: str) -> FileDataset:
    """Puts the pixels into a dataset in one transfer syntax.

    Args:
        ds: A header whose Bits*, Rows and Columns describe ``pixels``; changed in place.
        pixels: (rows, columns), of the dtype that BitsAllocated says.
        name: A short name from SYNTAXES.

    Returns:
        The dataset with file meta and PixelData, ready to be saved.

    Raises:
        NoEncoder: The encoder cannot take this image.
    """
    syntax = SYNTAXES[name]
    if name.startswith("j2k") and min(pixels.shape) < _J2K_SMALLEST:
        raise NoEncoder(
            f"transfer syntax {name} needs at least {_J2K_SMALLEST} rows and columns: "
            "pylibjpeg-openjpeg always halves the image five times"
        )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax.is_compressed else syntax
    file = FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128)
    file.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian, "iso8859")
    order: Literal["<", ">"] = "<" if syntax.is_little_endian else ">"
    raw = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder(order)).tobytes()
    file.PixelData = raw + b"\0" * (len(raw) % 2)
    file["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    if name in ("deflated", "rle", "jpegls", "jpegls_near", "j2k_lossless", "j2k"):
        _compress(file, name)
    elif syntax.is_compressed:
        frame = _FRAMES[name](pixels) if name in _FRAMES else _gdcm_frame(file, syntax)
        file.PixelData = encapsulate([frame])
        file["PixelData"].VR = "OB"
        meta.TransferSyntaxUID = syntax
    file["PixelData"].is_undefined_length = syntax.is_encapsulated
    if name in LOSSY:
        # What is said to be a ratio is one: raw bytes over bytes kept.
        kept = next(generate_frames(file.PixelData, number_of_frames=1))
        file.LossyImageCompression = "01"
        file.LossyImageCompressionRatio = f"{len(raw) / len(kept):.4g}"
        file.LossyImageCompressionMethod = _METHODS[name]
    return file


def _compress(file: FileDataset, name: str) -> None:
    """Encodes with pydicom's own encoders; each one's plugin is pinned."""
    meta = file.file_meta
    if name == "deflated":
        meta.TransferSyntaxUID = SYNTAXES[name]
        return
    choices: dict[str, tuple[str, dict[str, Any]]] = {
        "rle": ("gdcm", {}),
        "jpegls": ("pyjpegls", {}),
        "jpegls_near": ("pyjpegls", {"jls_error": _NEAR}),
        "j2k_lossless": ("pylibjpeg", {}),
        "j2k": ("pylibjpeg", {"j2k_cr": [_J2K_RATIO]}),
    }
    plugin, options = choices[name]
    file.compress(SYNTAXES[name], encoding_plugin=plugin, generate_instance_uid=False, **options)


def _jpeg(pixels: NDArray[np.integer]) -> bytes:
    """A baseline JPEG stream of 8-bit grey pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _htj2k(pixels: NDArray[np.integer]) -> bytes:
    """A reversible HTJ2K stream."""
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(pixels))


_FRAMES = {"jpeg": _jpeg, "htj2k": _htj2k}


def _gdcm_frame(file: FileDataset, syntax: uid.UID) -> bytes:
    """A JPEG stream made by GDCM, which reads and writes files only.

    Raises:
        NoEncoder: GDCM could not encode this image.
    """
    import gdcm  # Slow to import, and few files need it.

    kinds = {
        uid.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        uid.JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder, "raw.dcm")), str(Path(folder, "jpeg.dcm"))
        file.save_as(source, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(source)
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
        writer = gdcm.ImageWriter()
        writer.SetFileName(target)
        done = reader.Read()
        if done:
            change.SetInput(reader.GetImage())
            done = change.Change()
        if done:
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            done = writer.Write()
        if not done:
            raise NoEncoder(f"GDCM could not encode this image as {syntax.name} ({syntax})")
        encoded = pydicom.dcmread(target)
    return next(generate_frames(encoded.PixelData, number_of_frames=1))
