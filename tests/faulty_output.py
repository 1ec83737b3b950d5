"""An output to look at: real records of a real model, from radiographs with known faults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from builders import make_dicom
from lookalike_chest import chest

from cxr_embed.cli import main as cli_main
from cxr_embed.cli import run

HOSTILE = "<script>alert(1)</script>\"'&<b>"


@dataclass(frozen=True)
class Output:
    """Where the radiographs, the model and the records lie."""

    images: Path
    model: Path
    records: Path


def make_output(root: Path, small_model: Path) -> Output:
    """Makes radiographs below `root` and embeds them."""
    images = root / "radiographs"
    (images / "s1").mkdir(parents=True)
    for number in range(16):
        view = "LL" if number == 15 else "PA"
        _write(images / f"s1/c{number:02}.dcm", chest(number), ViewPosition=view)
    faults = images / "faults"
    faults.mkdir()
    _write(faults / "inverted.dcm", 65535 - chest(20))
    _write(faults / "turned.dcm", np.rot90(chest(21)).copy())
    _write(faults / "copy.dcm", chest(3))
    blank = np.full((160, 140), 500, np.uint16)
    blank[0, 0] = 501
    _write(faults / "blank.dcm", blank, WindowCenter=500, WindowWidth=4000)
    (faults / "torn.dcm").write_bytes(make_dicom(chest(22))[:9000])
    (faults / "notes.txt").write_text("for people")
    hostile = images / HOSTILE.replace("/", "_") / "<" / "script>"
    hostile.mkdir(parents=True)
    _write(hostile / "<img src=x onerror=alert(2)>.dcm", chest(23))
    status = cli_main.guarded(run.main, [
        f"--input_path={images}", f"--output_path={root}/embeddings", "--output_layout=mirror",
        f"--model_path={small_model}", "--verbosity=-1",
    ])  # fmt: skip
    assert status == 1  # one is torn
    return Output(images, small_model, root / "embeddings")


def _write(path: Path, pixels: np.ndarray, **elements: object) -> None:
    path.write_bytes(make_dicom(pixels, PatientName="Geheim^Ganz", **elements))
