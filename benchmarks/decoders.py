"""The free decoders of compressed radiographs: which are exact, and how long each takes.

    make bench
    PYTHONPATH=scripts python benchmarks/decoders.py [--write]

Generated radiographs of 3056 x 2544 pixels and 8 to 16 bits, and the lossless JPEG files that come
with pydicom. `exact`: the stored values that were encoded, or for lossy streams those of the pinned
decoder. Decoders take turns; the table shows medians of the processor time of all their threads,
which other work on the machine changes little.
"""

from __future__ import annotations

import functools
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import results
from phantom.encoders import LOSSY
from pydicom.data import get_testdata_files
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from workload import full_size

from cxr_embed.imaging.decoders import PINNED, _options
from cxr_embed.imaging.htj2k import decode_htj2k
from cxr_embed.imaging.lossless_jpeg import decode_lossless_jpeg
from cxr_embed.imaging.rle import decode_rle

_IMAGECODECS = {
    "jpeg_lossless": ("jpegsof3", "ljpeg"),
    "jpegls": ("jpegls",),
    "jpegls_near": ("jpegls",),
    "j2k_lossless": ("jpeg2k",),
    "j2k": ("jpeg2k",),
    "htj2k": ("htj2k",),
    "rle": ("dicomrle",),
}
_PYDICOMS = {
    "jpeg_lossless": ("gdcm",),
    "jpegls": ("pyjpegls", "gdcm"),
    "jpegls_near": ("pyjpegls", "gdcm"),
    "j2k_lossless": ("pylibjpeg", "gdcm"),
    "j2k": ("pylibjpeg", "gdcm"),
    "htj2k": ("pylibjpeg",),
    "rle": ("pylibjpeg",),
}
# Called past pydicom, with the checks of this package.
_CHOSEN = {
    "jpeg_lossless": "imagecodecs ljpeg",
    "htj2k": "imagecodecs htj2k",
    "rle": "imagecodecs dicomrle",
}
_OURS = {"ljpeg": decode_lossless_jpeg, "htj2k": decode_htj2k, "dicomrle": decode_rle}

Ways = dict[str, Callable[[], np.ndarray]]


def ways_to_decode(data: bytes, syntax: str) -> Ways:
    """Returns the decoders of one file, by name."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    uid, pixels, options = dataset.file_meta.TransferSyntaxUID, dataset.PixelData, _options(dataset)
    frame = next(generate_frames(pixels, number_of_frames=1))
    found: Ways = {}
    for plugin in _PYDICOMS[syntax]:
        found[plugin] = lambda plugin=plugin: get_decoder(uid).as_array(
            pixels, raw=True, decoding_plugin=plugin, correct_unused_bits=False, **options
        )[0]
    for name in _IMAGECODECS.get(syntax, ()):
        if name in _OURS:
            way = functools.partial(_OURS[name], frame, options)
        else:
            way = functools.partial(getattr(imagecodecs, f"{name}_decode"), frame)
        found[f"imagecodecs {name}"] = way
    return found


def measure(ways: Ways, rounds: int) -> dict[str, float]:
    """Returns median seconds of each way, alternating."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def _pinned(syntax: str, uid: str) -> str:
    return _CHOSEN.get(syntax, PINNED[uid].plugin)


def _is_exact(way: Callable[[], np.ndarray], truth: np.ndarray) -> str:
    try:
        return "yes" if np.array_equal(way(), truth) else "no"
    except Exception as error:
        return f"no ({type(error).__name__})"


def generated(rounds: int) -> list[str]:
    """Returns the rows of generated radiographs."""
    lines = []
    for syntax in _PYDICOMS:
        for bits in (8, 10, 12, 16):
            data = full_size(1, syntax, bits)
            uid = str(pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID)
            ways = ways_to_decode(data, syntax)
            pinned = _pinned(syntax, uid)
            plain = pydicom.dcmread(io.BytesIO(full_size(1, "explicit", bits))).pixel_array
            truth = ways[pinned]() if syntax in LOSSY else plain
            exact = {name: _is_exact(way, truth) for name, way in ways.items()}
            usable = {name: way for name, way in ways.items() if "(" not in exact[name]}
            seconds = measure(usable, rounds)
            for name in usable:
                mark = "**" if name == pinned else ""
                lines.append(
                    f"| {syntax}, {bits} bit | {mark}{name}{mark} | {exact[name]} "
                    f"| {1e3 * seconds[name]:.0f} | {seconds[name] / seconds[pinned]:.2f} |"
                )
                print(lines[-1], flush=True)
    return lines


def real_files() -> str:
    """Compares liblj92 with GDCM on the lossless JPEG files that come with pydicom."""
    count = 0
    for path in map(Path, get_testdata_files("*.dcm")):
        try:
            dataset = pydicom.dcmread(path)
            uid = dataset.file_meta.TransferSyntaxUID
        except Exception:
            continue
        plugin = PINNED.get(uid)
        if plugin is None or plugin.plugin != "gdcm":
            continue
        if dataset.get("SamplesPerPixel") != 1 or int(dataset.get("NumberOfFrames", 1) or 1) != 1:
            continue
        options = _options(dataset)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        gdcm, _ = get_decoder(uid).as_array(
            dataset.PixelData, raw=True, decoding_plugin="gdcm", **options
        )
        if not np.array_equal(decode_lossless_jpeg(frame, options), gdcm):
            raise RuntimeError(f"{path.name}: liblj92 and GDCM differ")
        count += 1
    return f"{count} lossless JPEG files that come with pydicom: liblj92 equals GDCM in all."


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    lines = [
        "Bold: the pinned decoder.\n",
        "| 3056 x 2544 | decoder | exact | ms of a core | time / pinned |",
        "| --- | --- | --- | --- | --- |",
        *generated(arguments.rounds),
        "",
        real_files(),
        "\nGDCM has no HTJ2K.",
    ]
    if arguments.write:
        title = "Decoders"
        results.write_section(title.lower(), f"## {title}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
