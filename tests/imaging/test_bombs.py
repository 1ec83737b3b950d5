"""Small files that want a lot: each ends with its reason, in little time and memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders import GRADIENT, as_bytes, lut_item, make_dataset, make_dicom
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from cxr_embed.imaging.image_files import read_image

# ru_maxrss would count what the test process held when it forked; VmHWM starts anew. A child
# that was killed at its limit leaves no trace, and then its limit is what bounds it.
READ = """
import os, sys
from cxr_embed.imaging import decoder_child
from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.image_files import read_image

def peak(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return next((int(line.split()[1]) for line in lines if "VmHWM" in line), 0)

def seconds_of(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # of its ended children, too

data = open(sys.argv[1], "rb").read()
started = seconds_of("self")
try:
    end = f"pixels {read_image(data).pixels.shape}"
except ImageRejected as rejected:
    end = rejected.reason
alive = [child.pid for child in decoder_child.children if child.is_alive]
seconds = seconds_of("self") - started + sum(map(seconds_of, alive))
print(end, round(seconds, 2), peak("self") + sum(map(peak, alive)))
"""


def compressed(syntax: str, stream: bytes, rows: int, columns: int) -> bytes:
    """A file whose header gives so many rows and columns around any stream."""
    dataset = make_dataset(np.zeros((1, 1), np.uint8) if syntax == JPEGBaseline8Bit else GRADIENT)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    return as_bytes(dataset)


def stream_of(syntax: str) -> bytearray:
    dataset = make_dataset()
    dataset.compress(syntax, encoding_plugin="pyjpegls" if syntax == JPEGLSLossless else "")
    return bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))


def jpeg2000_claiming(rows: int, columns: int, tile: int) -> bytes:
    stream = stream_of(JPEG2000Lossless)
    siz = stream.index(b"\xff\x4f\xff\x51") + 2
    struct.pack_into(">II", stream, siz + 6, columns, rows)
    struct.pack_into(">II", stream, siz + 22, tile, tile)
    return bytes(stream)


def jpegls_claiming(rows: int, columns: int) -> bytes:
    stream = stream_of(JPEGLSLossless)
    place = stream.index(b"\xff\xf7")
    struct.pack_into(">HH", stream, place + 5, rows, columns)
    return bytes(stream)


def deflated_zeros(megabytes: int) -> bytes:
    """Every megabyte is compressed by itself, and so all are the same bytes."""
    bomb = zlib.compressobj(9, wbits=-15)
    megabyte = bomb.compress(bytes(1 << 20)) + bomb.flush(zlib.Z_FULL_FLUSH)
    return megabyte * megabytes + bomb.flush()


def gzipped(start: bytes, megabytes: int) -> bytes:
    """A gzip file (RFC 1952) of some bytes and that many megabytes of zeros."""
    head = zlib.compressobj(1, wbits=-15)
    stream = head.compress(start) + head.flush(zlib.Z_FULL_FLUSH) + deflated_zeros(megabytes)
    checksum = zlib.crc32(start)
    for _ in range(megabytes):
        checksum = zlib.crc32(bytes(1 << 20), checksum)
    size = len(start) + (megabytes << 20)
    return b"\x1f\x8b\x08" + bytes(7) + stream + struct.pack("<II", checksum, size)


def deflated_bomb() -> bytes:
    dataset = make_dataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = as_bytes(dataset)
    position = 132  # the file meta group is as long as its first element gives
    (length,) = struct.unpack_from("<I", data, position + 8)
    return data[: position + 12 + length] + deflated_zeros(1_000)


def rle_that_expands() -> bytes:
    """Two bytes make 128: 8 MB make half a gigabyte, where the header gives 10 x 10 pixels."""
    runs = b"\x81\x00" * 4_000_000
    header = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13)
    return compressed(RLELossless, header + runs + runs, 10, 10)


BOMBS = {
    "deflate": (deflated_bomb, {"too_large"}),
    "gzip": (lambda: gzipped(make_dicom(), 1024), {"too_large"}),
    "gzip_of_nothing": (lambda: gzipped(b"", 1024), {"not_an_image"}),
    "rows_and_columns": (lambda: make_dicom(Rows=65535, Columns=65535), {"too_large"}),
    "jpeg2000_claims_another_size": (
        lambda: compressed(JPEG2000Lossless, jpeg2000_claiming(65535, 65535, 65535), 72, 64),
        {"decode_error"},
    ),
    "jpeg2000_of_a_hundred_megapixels_in_a_few_bytes": (
        lambda: compressed(
            JPEG2000Lossless, jpeg2000_claiming(10_000, 9_900, 9_900), 10_000, 9_900
        ),
        {"decode_error", "truncated", "too_large"},
    ),
    "jpeg2000_of_a_million_tiles": (
        lambda: compressed(JPEG2000Lossless, jpeg2000_claiming(2_000, 2_000, 2), 2_000, 2_000),
        {"decode_error", "truncated", "too_large"},
    ),
    "jpegls_claims_another_size": (
        lambda: compressed(JPEGLSLossless, jpegls_claiming(65535, 65535), 72, 64),
        {"decode_error"},
    ),
    "jpegls_of_a_hundred_megapixels_in_a_few_bytes": (
        lambda: compressed(JPEGLSLossless, jpegls_claiming(10_000, 9_900), 10_000, 9_900),
        {"decode_error", "truncated", "too_large"},
    ),
    "rle_that_expands": (rle_that_expands, {"decode_error", "truncated", "too_large"}),
    "a_lut_of_nothing": (
        lambda: make_dicom(ModalityLUTSequence=[lut_item(0, [1], 16)] * 20_000),
        {"constant_image"},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_it_ends_within_ten_seconds_and_a_gigabyte(name: str, tmp_path: Path) -> None:
    make, reasons = BOMBS[name]
    path = tmp_path / "bomb.dcm"
    path.write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", READ, path], capture_output=True, text=True, check=True, timeout=300
    )
    end, seconds, kilobytes = done.stdout.rsplit(maxsplit=2)
    assert end in reasons
    assert float(seconds) < 30  # of processors; on one that is not shared and not slow: below 10
    assert int(kilobytes) < 1_000_000


def test_thousands_of_fragments_are_joined() -> None:
    stream = bytes(stream_of(JPEGLSLossless))
    dataset = make_dataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = encapsulate([stream], fragments_per_frame=min(len(stream) // 2, 2_000))
    dataset["PixelData"].is_undefined_length = True
    assert read_image(as_bytes(dataset)).pixels.shape == GRADIENT.shape
