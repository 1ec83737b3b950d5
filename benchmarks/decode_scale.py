"""`--decode_scale=auto`: JPEG 2000 and HTJ2K at a lower resolution, in time and in embeddings.

    make bench
    PYTHONPATH=scripts python benchmarks/decode_scale.py [--write]

Eight generated radiographs of 3056 x 2544 pixels, 12 of 16 bits, whose header has a window. The
time is from a file's bytes to the model's input; whole and reduced take turns, and the table shows
medians. The embeddings are those of EfficientNet-Lite0 trained on ImageNet, the only trained
network that can be had without a licence; it was not trained on radiographs. The cosine is of one
radiograph's two embeddings, after the mean of all whole ones is subtracted; beside it stands the
largest cosine of two different radiographs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import results
from lite0_weights import main as write_lite0_weights
from workload import full_size

from cxr_embed import models
from cxr_embed.efficientnet.export import export_model
from cxr_embed.imaging.image_files import read_image
from cxr_embed.models.fit import ModelInput, fit_image

IMAGES, ROUNDS = 8, 3
SYNTAXES = ("j2k_lossless", "j2k", "htj2k")
SIZES = (224, 475, 1280)


def measure(syntax: str, size: int, model_path: Path) -> str:
    """Returns a row: one syntax, one size of the model's input."""
    files = [full_size(seed, syntax) for seed in range(IMAGES)]
    wanted = ModelInput(size, size, 3)
    model = models.load(models.ModelSettings(str(model_path)))
    whole, less = [], []
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for data in files:
            for is_reduced in (False, True):
                started = time.perf_counter()
                read = read_image(data, cover=(size, size) if is_reduced else None)
                fit_image(read, wanted)
                times[is_reduced].append(time.perf_counter() - started)
                if len(less if is_reduced else whole) < IMAGES:
                    vector = model.embed([model.fit(read)])[0].astype(np.float64)
                    (less if is_reduced else whole).append(vector)
                    shape = read.pixels.shape
    same, different = _cosines(np.array(whole), np.array(less))
    seconds = {key: statistics.median(found) for key, found in times.items()}
    row = (
        f"| {syntax} | {size} | {shape[0]} x {shape[1]} | {1e3 * seconds[False]:.0f} "
        f"| {1e3 * seconds[True]:.0f} | {seconds[False] / seconds[True]:.1f} "
        f"| {same.min():.4f} | {different:.4f} |"
    )
    print(row, flush=True)
    return row


def _cosines(whole: np.ndarray, less: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the cosine of each image's two embeddings, and the largest of two images."""
    mean = whole.mean(axis=0)
    whole, less = whole - mean, less - mean
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    less /= np.linalg.norm(less, axis=1, keepdims=True)
    between = whole @ whole.T - 2 * np.eye(len(whole))
    return (whole * less).sum(axis=1), float(between.max())


def main() -> None:
    """Measures and prints the table."""
    parser = results.parser(__doc__)
    write = parser.parse_args().write
    rows = [
        "| syntax | model's input | decoded at | whole, ms | reduced, ms | faster "
        "| lowest cosine | two radiographs, highest cosine |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "lite0.safetensors"
        write_lite0_weights([str(weights)])
        for size in SIZES:
            path = Path(folder) / str(size)
            export_model(
                path, architecture="efficientnet-lite0", weights=str(weights), image_size=size,
                embedding_size=0,
            )  # fmt: skip
            rows += [measure(syntax, size, path) for syntax in SYNTAXES]
    note = f"Medians of {ROUNDS} rounds over {IMAGES} radiographs, one thread."
    text = "\n".join(["## Decoding at a lower resolution", "", *rows, "", note])
    if write:
        results.write_section("decoding at a lower resolution", text)


if __name__ == "__main__":
    main()
