"""Makes the pictures of the README and of the documentation, from synthetic radiographs.

    python scripts/make_pictures.py

It needs Chromium (`apt install chromium`) and takes some minutes. docs/pictures/ then contains:

    pipeline.svg   the steps of the main job
    terminal.svg   a session in a terminal: the main job, and a search
    report.png     a part of the page that `cxr-embed report` writes
    inspect.png    the picture that `cxr-embed inspect --output_path` writes

The model is a small EfficientNet-B0 with random weights. Look at the pictures before a commit.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import make_sample_dicoms
import numpy as np
from pictures import pipeline, terminal
from PIL import Image

import cxr_embed
from cxr_embed.efficientnet.export import export_model

PICTURES = Path(__file__).resolve().parent.parent / "docs/pictures"
BUDGET = 300_000  # bytes of all pictures together
_IMAGES = 48
_COLUMNS = 96
_COLOURS = 16  # of a picture, besides greys
_CXR_EMBED = (sys.executable, "-c", "from cxr_embed.cli.main import run; run()")
_RUN = (
    "run", "--input_path", "radiographs", "--output_path", "embeddings", "--model_path", "my_model",
)  # fmt: skip
_SEARCH = ("search", "--input_path", "embeddings", "--query", "SYN-000003", "--k", "4")
_REPORT = (
    "report", "--input_path", "embeddings", "--output_path", "report.html", "--labels_csv",
    "labels.csv", "--colour_by", "finding", "--map", "pca",
)  # fmt: skip
_INSPECT = ("inspect", "one.dcm", "--output_path", "inspect.png", "--size", "300")


def main(argv: Sequence[str] | None = None) -> int:
    """Makes all pictures.

    Returns:
        0, or 1 where there is no Chromium or the pictures are too large.
    """
    parser = argparse.ArgumentParser(description="Makes docs/pictures from synthetic radiographs.")
    parser.add_argument("--output", type=Path, default=PICTURES, help="folder to write to")
    output: Path = parser.parse_args(argv).output.absolute()
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("error: no Chromium found: install it, for example apt install chromium")
        return 1
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _make_inputs(work)
        session = [("cxr-embed " + " ".join(c), _in_terminal(c, work)) for c in (_RUN, _SEARCH)]
        (output / "terminal.svg").write_text(terminal.drawing(session, _COLUMNS))
        for command in (_REPORT, _INSPECT):
            subprocess.run([*_CXR_EMBED, *command], cwd=work, check=True, capture_output=True)
        _small_copy(Image.open(work / "inspect.png"), output / "inspect.png", 40)
        _photograph(work / "report.html", browser, work / "report.png")
        _small_copy(Image.open(work / "report.png"), output / "report.png", 30)
        pixels = cxr_embed.read_radiograph(work / "one.dcm", "dicom").pixels
    (output / "pipeline.svg").write_text(pipeline.drawing(_thumbnail(pixels, 104)))
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {size:,} bytes")
    return int(size > BUDGET)


def _make_inputs(work: Path) -> None:
    """Writes radiographs, one of them damaged, their labels, one frontal image, and a model."""
    make_sample_dicoms.main(
        ["--n", str(_IMAGES), "--output", str(work / "radiographs"), "--size", "512x512",
         "--labels", str(work / "labels.csv"), "--workers", "2"]
    )  # fmt: skip
    damaged = work / "radiographs/SYN-000007.dcm"
    damaged.write_bytes(damaged.read_bytes()[:9_000])
    # The two renderings differ where the header asks for a sigmoid window.
    one = make_sample_dicoms.make_dataset(
        12, rows=512, columns=480, ViewPosition="PA", PhotometricInterpretation="MONOCHROME2",
        VOILUTFunction="SIGMOID", WindowCenter="1700", WindowWidth="1500", BitsStored=12,
    )  # fmt: skip
    one.save_as(work / "one.dcm", enforce_file_format=True)
    export_model(work / "my_model", architecture="efficientnet-b0", image_size=96, embedding_size=0)


def _in_terminal(command: Sequence[str], work: Path) -> str:
    """Runs a verb in a terminal of its own; returns all it printed, escape sequences included."""
    master, slave = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(_COLUMNS), "LINES": "40", "TERM": "xterm-256color", "COLORTERM": "truecolor",
    }  # fmt: skip
    process = subprocess.Popen(
        [*_CXR_EMBED, *command], cwd=work, env=environment, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    printed = bytearray()
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # Linux: the other end is closed
            break
        if not data:
            break
        printed += data
    process.wait()
    os.close(master)
    return printed.decode()


def _photograph(page: Path, browser: str, output: Path) -> None:
    """Photographs the sections with pictures, figures and the map of a report."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = chromium.new_page(viewport={"width": 900, "height": 900}, color_scheme="light")
        view.goto(page.as_uri())
        view.wait_for_timeout(500)
        first = view.locator("section#pictures").bounding_box()
        last = view.locator("section#map").bounding_box()
        assert first and last
        height = last["y"] + last["height"] - first["y"]
        view.screenshot(
            path=output, full_page=True,
            clip={"x": 0, "y": first["y"], "width": 900, "height": height},
        )  # fmt: skip
        chromium.close()


def _small_copy(image: Image.Image, path: Path, greys: int) -> None:
    """Writes a picture with a palette of greys and the few other colours that it has."""
    levels = np.repeat(np.linspace(0, 255, greys).round().astype(np.uint8), 3)
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    vivid = pixels[np.ptp(pixels.astype(int), axis=1) > 24]
    colours: list[int] = []
    if len(vivid):
        strip = Image.fromarray(vivid[None])
        colours = strip.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*levels.tolist(), *colours[: 3 * _COLOURS]])
    small = image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def _thumbnail(pixels: np.ndarray, size: int) -> bytes:
    """Returns a radiograph, integers of shape (rows, columns), as a JPEG of `size` x `size`."""
    grey = (pixels / np.iinfo(pixels.dtype).max * 255).astype(np.uint8)
    small = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    return data.tobytes()


if __name__ == "__main__":
    raise SystemExit(main())
