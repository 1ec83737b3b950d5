"""EfficientNet-L2 at 475 pixels on the CPU: TensorFlow, OpenVINO and ONNX Runtime.

    make bench
    PYTHONPATH=scripts python benchmarks/engines.py [--write] [--rounds N]

TensorFlow and OpenVINO run in float32 and bfloat16, ONNX Runtime the exporter's ONNX graph of the
same weights, which is float32. Each runs in a process of its own, since each would keep the memory
of the one before; they take turns, in the other direction every second round. All embed the same
images, one at a time: the two real radiographs of pydicom-data and generated ones. The reference's
batch norm is calibrated, so that its embeddings differ between images; how much they do stands
below the table, and so does how far ONNX Runtime is from TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from results import write_section

SIDE = 475
GENERATED = 2
WARM_UPS = 1

KINDS = [
    (engine, precision)
    for engine in ("tensorflow", "openvino")
    for precision in ("float32", "bfloat16")
] + [("onnxruntime", "float32")]

_GOALS = {
    ("openvino", "float32"): (1.0, 0.99999),
    ("openvino", "bfloat16"): (2.0, 0.999),
    ("tensorflow", "bfloat16"): (0.0, 0.999),
    ("onnxruntime", "float32"): (0.0, 0.99999),
}


def images() -> np.ndarray:
    """Returns radiographs as the model takes them: the real ones first."""
    import data_store
    from make_sample_dicoms import make_dataset

    from cxr_embed import read_radiograph
    from cxr_embed.models.fit import ModelInput, fit_image

    folder = Path(data_store.__path__[0]) / "data"
    sources: list[Any] = [folder / "RG1_UNCR.dcm", folder / "RG3_UNCR.dcm"]
    sources += [make_dataset(seed) for seed in range(GENERATED)]
    return np.stack([fit_image(read_radiograph(each), ModelInput(SIDE, SIDE)) for each in sources])


def work(model_path: str, engine: str, precision: str, folder: Path) -> None:
    """Loads the model, embeds the images, and writes embeddings and measurements."""
    batch = np.load(folder / "images.npy")
    started = time.perf_counter()
    from cxr_embed import models

    model = models.load(models.ModelSettings(model_path, engine=engine, precision=precision))
    loaded = time.perf_counter()
    for _ in range(WARM_UPS):
        model.embed(batch[:1])
    first = time.perf_counter()
    vectors, times = [], []
    for image in batch:
        since = time.perf_counter()
        vectors.append(model.embed(image[np.newaxis])[0])
        times.append(time.perf_counter() - since)
    np.save(folder / f"{engine}_{precision}.npy", vectors)
    measured = {
        "load": loaded - started,
        "first": first - loaded,
        "times": times,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(json.dumps(measured))


def export_onnx(folder: Path) -> str:
    """Exports the reference as an ONNX graph, in a process whose memory is not measured."""
    from cxr_embed.efficientnet import reference

    program = "from cxr_embed.cli.main import run; run()"
    command = [
        sys.executable, "-c", program, "export-model", "--format=onnx",
        f"--architecture={reference.ARCHITECTURE}", f"--image_size={reference.IMAGE_SIZE}",
        f"--embedding_size={reference.EMBEDDING_SIZE}", f"--seed={reference.SEED}",
        f"--output={folder}",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return str(folder)


def measure(
    model_paths: dict[str, str], rounds: int, folder: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """Runs all kinds in turn, each with its engine's model; returns medians of each."""
    np.save(folder / "images.npy", images())
    found: dict[tuple[str, str], list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for turn in range(rounds):
        for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
            command = [
                sys.executable,
                __file__,
                "--worker",
                *kind,
                str(folder),
                "--model",
                model_paths[kind[0]],
            ]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[kind].append(json.loads(ran.stdout.splitlines()[-1]))
            print(*kind, found[kind][-1], file=sys.stderr)
    return {
        kind: {
            "seconds": statistics.median(t for one in all_ for t in one["times"]),
            "load": statistics.median(one["load"] for one in all_),
            "first": statistics.median(one["first"] for one in all_),
            "peak": max(one["peak"] for one in all_),
            "vectors": np.load(folder / f"{kind[0]}_{kind[1]}.npy"),
        }
        for kind, all_ in found.items()
    }  # fmt: skip


def table(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Returns the measurements for people, and which goals are met."""
    base = found[KINDS[0]]
    lines = [
        "| engine | precision | s an image | times as fast | lowest cosine | load, s | "
        "first call, s | peak GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    notes = []
    for kind in KINDS:
        one = found[kind]
        ratio = base["seconds"] / one["seconds"]
        lowest = float(cosines(one["vectors"], base["vectors"]).min())
        lines.append(
            f"| {kind[0]} | {kind[1]} | {one['seconds']:.2f} | {ratio:.2f} | {lowest:.6f} | "
            f"{one['load']:.1f} | {one['first']:.1f} | {one['peak']:.1f} |"
        )
        if kind in _GOALS:
            speed, likeness = _GOALS[kind]
            met = "met" if ratio >= speed and lowest >= likeness else "MISSED"
            notes.append(f"{kind[0]} {kind[1]}: {speed:g} x and {likeness} {met}")
    met = "met" if base["load"] <= 12 and base["peak"] <= 6 else "MISSED"
    notes.append(f"TensorFlow float32 loaded within 12 s and 6 GB: {met}")
    onnx = found["onnxruntime", "float32"]["vectors"] - base["vectors"]
    apart = np.abs(onnx).max() / np.abs(base["vectors"]).max()
    notes.append(
        f"ONNX Runtime float32 within 1e-4 of TensorFlow's largest value: {apart:.1e}, "
        f"{'met' if apart <= 1e-4 else 'MISSED'}"
    )
    centred = base["vectors"] - base["vectors"].mean(axis=0)
    pairs = [
        float(cosines(centred[i : i + 1], centred[j : j + 1])[0])
        for i in range(len(centred))
        for j in range(i)
    ]
    return (
        "\n".join(lines)
        + f"\n\nGoals: {'; '.join(notes)}.\nCentred embeddings of different images have cosines of "
        f"at most {max(pairs):.2f}, so the cosines above are not flattered by a common direction."
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row with its counterpart."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", help="another SavedModel of 475 x 475 than the reference")
    parser.add_argument("--onnx_model", help="the same weights in ONNX; by default it is exported")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, precision, folder = arguments.worker
        work(arguments.model, engine, precision, Path(folder))
        return
    from cxr_embed.efficientnet.reference import ensure_reference_model

    model = arguments.model or ensure_reference_model(print)
    with tempfile.TemporaryDirectory() as folder:
        onnx_model = arguments.onnx_model or export_onnx(Path(folder, "onnx"))
        paths = {"tensorflow": model, "openvino": model, "onnxruntime": onnx_model}
        text = table(measure(paths, arguments.rounds, Path(folder)))
    print(text)
    if arguments.write:
        write_section("engines", "## Engines: EfficientNet-L2, 475 x 475, batch 1\n\n" + text)


if __name__ == "__main__":
    main()
