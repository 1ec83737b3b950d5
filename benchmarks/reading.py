"""From a file's bytes to the model's input: ours, pydicom's bare decode, and the original's way.

    make bench
    PYTHONPATH=scripts python benchmarks/reading.py [--write]

One radiograph of 3056 x 2544 pixels, 12 of 16 bits, in several transfer syntaxes. The three take
turns; the table shows medians and ratios. `--write` puts it into RESULTS.md.

- ours: `read_image` and `fit_image` to 475 x 475 x 3, on one thread;
- bare decode: pydicom's `dcmread` and `pixel_array` with its fastest plugin that is installed, and
  nothing else;
- the original's way, re-stated: window and stretch with `numpy.interp` in float64 over every pixel,
  then a PNG through pypng (pip install pypng), which is what its model took.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pydicom
import results
from make_sample_dicoms import make_dataset
from pydicom.uid import RLELossless

from cxr_embed.imaging.decoders import NATIVE, PINNED
from cxr_embed.imaging.image_files import read_image
from cxr_embed.models.fit import ModelInput, fit_image

SYNTAXES = ("explicit", "rle", "jpegls", "jpeg_lossless", "j2k_lossless")
ROUNDS = 7
_INPUT = ModelInput(475, 475, 3)

_NOTES = """

Goals: uncompressed within 30 ms and 20 times as fast as the original's way; compressed within 1.15
times the bare decode. pydicom has no plugin for the decoders of RLE and of lossless JPEG that are
pinned here, so that its decode is by pylibjpeg-rle and by GDCM.
"""


def ours(data: bytes) -> np.ndarray:
    """Bytes to the model's input."""
    return fit_image(read_image(data), _INPUT)


def bare_decode(data: bytes) -> np.ndarray:
    """Bytes to stored values, by pydicom's fastest plugin."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in NATIVE:
        is_rle = syntax == RLELossless  # pydicom's own decoder is written in Python
        plugin = "pylibjpeg" if is_rle else PINNED[syntax].plugin
        dataset.pixel_array_options(decoding_plugin=plugin)
    return dataset.pixel_array


def originals_way(data: bytes) -> bytes:
    """Bytes to a PNG, every step over every pixel."""
    import png

    dataset = pydicom.dcmread(io.BytesIO(data))
    image = dataset.pixel_array
    centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    low, high = centre - width / 2, centre - 1 + width / 2
    shown = np.interp(image.clip(low, high), (low, high), (0, 65535))
    shown = np.max(shown) - shown
    shown = (shown - shown.min()).astype(np.uint16)
    stretched = np.interp(shown, (shown.min(), shown.max()), (0, 65535)).astype(np.uint16)
    buffer = io.BytesIO()
    rows, columns = stretched.shape
    png.Writer(columns, rows, greyscale=True, bitdepth=16).write(buffer, stretched.tolist())
    return buffer.getvalue()


def _file(syntax: str) -> bytes:
    dataset = make_dataset(
        3, rows=3056, columns=2544, transfer_syntax=syntax, BitsStored=12, PixelRepresentation=0,
        PhotometricInterpretation="MONOCHROME1", ViewPosition="PA", VOILUTSequence=None,
        RescaleSlope=None, RescaleIntercept=None, WindowCenter="2048", WindowWidth="3500",
    )  # fmt: skip
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _medians(data: bytes, ways: dict[str, Callable[[bytes], Any]]) -> dict[str, float]:
    """Median milliseconds of each way, alternating; the slow one is measured less often."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            if name == "original" and turn > 2:
                continue
            started = time.perf_counter()
            way(data)
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    arguments = parser.parse_args()
    try:
        import png  # noqa: F401
    except ImportError:
        parser.error("the original's way needs pypng: pip install pypng")
    cv2.setNumThreads(1)
    lines = [
        "| 3056 x 2544, 12 bit | ours, ms | bare decode, ms | ours / bare | original's way, ms | "
        "times as fast |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for syntax in SYNTAXES:
        found = _medians(
            _file(syntax), {"ours": ours, "bare": bare_decode, "original": originals_way}
        )
        mine, bare, original = found["ours"], found["bare"], found["original"]
        lines.append(
            f"| {syntax} | {mine:.0f} | {bare:.0f} | {mine / bare:.2f} | {original:.0f} | "
            f"{original / mine:.1f} |"
        )
        print(lines[-1], flush=True)
    if arguments.write:
        results.write_section(
            "reading", "## Reading: bytes to model input\n\n" + "\n".join(lines) + _NOTES
        )


if __name__ == "__main__":
    main()
