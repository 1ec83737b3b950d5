"""EfficientNets on the CPU: TensorFlow, OpenVINO and ONNX Runtime, beside what the machine can do.

    make bench
    PYTHONPATH=scripts python benchmarks/engines.py [--network l2-475] [--write] [--rounds N]

TensorFlow and OpenVINO run in float32 and bfloat16, ONNX Runtime the exporter's ONNX graph of the
same weights, which is float32. Each runs in a process of its own, since each would keep the memory
of the one before; they take turns, in the other direction every second round. All embed the same
images, one at a time: the two real radiographs of pydicom-data and generated ones. The reference's
batch norm is calibrated, so that its embeddings differ between images; how much they do stands
below the table, and so does how far ONNX Runtime is from TensorFlow. `limits.py` measures what the
machine can do, and ONNX Runtime's profiler says where the time goes.
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
from typing import Any, NamedTuple

import limits
import numpy as np
import results
from workload import apart

from cxr_embed.efficientnet.architecture import ARCHITECTURES

WARM_UPS = 1
EMBEDDING_SIZE = 4096


class Network(NamedTuple):
    """A network at a size, and how much of the benchmark it gets."""

    architecture: str
    side: int
    images: int
    precisions: tuple[str, ...]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Engines and precisions, TensorFlow's float32 first."""
        two = [(e, p) for e in ("tensorflow", "openvino") for p in self.precisions]
        return [*two, ("onnxruntime", "float32")]


NETWORKS = {
    "l2-475": Network("efficientnet-l2", 475, 4, ("float32", "bfloat16")),
    "l2-1280": Network("efficientnet-l2", 1280, 1, ("float32",)),
    "b0-224": Network("efficientnet-b0", 224, 60, ("float32", "bfloat16")),
}

_GOALS = {
    ("openvino", "float32"): (1.0, 0.99999),
    ("openvino", "bfloat16"): (2.0, 0.999),
    ("tensorflow", "bfloat16"): (0.0, 0.999),
    ("onnxruntime", "float32"): (0.0, 0.99999),
}


def images(network: Network) -> np.ndarray:
    """Returns radiographs as the model takes them: the real ones first, at most six different."""
    import data_store
    from make_sample_dicoms import make_dataset

    from cxr_embed import read_radiograph
    from cxr_embed.models.fit import ModelInput, fit_image

    folder = Path(data_store.__path__[0]) / "data"
    sources: list[Any] = [folder / "RG1_UNCR.dcm", folder / "RG3_UNCR.dcm"]
    sources += [make_dataset(seed) for seed in range(min(4, network.images - 2))]
    size = ModelInput(network.side, network.side)
    fitted = [fit_image(read_radiograph(each), size) for each in sources[: network.images]]
    return np.stack([fitted[number % len(fitted)] for number in range(network.images)])


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


def export(network: Network, format_: str, folder: Path) -> str:
    """Exports an untrained network, in a process whose memory is not measured."""
    from cxr_embed.efficientnet import reference

    program = "from cxr_embed.cli.main import run; run()"
    command = [
        sys.executable, "-c", program, "export-model", f"--format={format_}",
        f"--architecture={network.architecture}", f"--image_size={network.side}",
        f"--embedding_size={EMBEDDING_SIZE}", f"--seed={reference.SEED}",
        f"--output={folder / format_}",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return str(folder / format_)


def measure(
    network: Network, model_paths: dict[str, str], rounds: int, folder: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """Runs all kinds in turn, each with its engine's model; returns medians of each."""
    np.save(folder / "images.npy", images(network))
    kinds = network.kinds
    found: dict[tuple[str, str], list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for turn in range(rounds):
        for kind in kinds if turn % 2 == 0 else reversed(kinds):
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


def table(
    network: Network, found: dict[tuple[str, str], dict[str, Any]], matrix: float, memory: float
) -> str:
    """Returns the measurements for people, and which goals are met.

    Args:
        network: what was measured.
        found: the measurements.
        matrix: float32 operations a second of a large matrix product.
        memory: bytes a second of memory.
    """
    base = found[network.kinds[0]]
    asked = limits.needs(ARCHITECTURES[network.architecture], network.side)
    lines = [
        "| engine | precision | s an image | times as fast | share of matrix peak | "
        "lowest cosine | load, s | first call, s | peak GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    notes = []
    for kind, one in found.items():
        ratio = base["seconds"] / one["seconds"]
        lowest = float(cosines(one["vectors"], base["vectors"]).min())
        lines.append(
            f"| {kind[0]} | {kind[1]} | {one['seconds']:.3g} | {ratio:.2f} | "
            f"{2 * asked.macs / one['seconds'] / matrix:.2f} | {lowest:.6f} | "
            f"{one['load']:.1f} | {one['first']:.1f} | {one['peak']:.1f} |"
        )
        if kind in _GOALS and network == NETWORKS["l2-475"]:
            speed, likeness = _GOALS[kind]
            met = "met" if ratio >= speed and lowest >= likeness else "MISSED"
            notes.append(f"{kind[0]} {kind[1]}: {speed:g} x and {likeness} {met}")
    if network.architecture == "efficientnet-l2":
        best = min(one["seconds"] for kind, one in found.items() if kind[1] == "float32")
        share = 2 * asked.macs / best / matrix
        notes.append(
            f"the fastest float32 at 0.85 of the matrix peak: {share:.2f}, "
            f"{'met' if share >= 0.85 else 'MISSED'}"
        )
    if network == NETWORKS["l2-475"]:
        met = "met" if base["load"] <= 12 and base["peak"] <= 6 else "MISSED"
        notes.append(f"TensorFlow float32 loaded within 12 s and 6 GB: {met}")
    onnx = found["onnxruntime", "float32"]["vectors"] - base["vectors"]
    apart = np.abs(onnx).max() / np.abs(base["vectors"]).max()
    notes.append(
        f"ONNX Runtime float32 within 1e-4 of TensorFlow's largest value: {apart:.1e}, "
        f"{'met' if apart <= 1e-4 else 'MISSED'}"
    )
    return "\n".join(
        [
            *lines, "",
            f"An image takes {2 * asked.macs / 1e9:,.1f} GFLOP, "
            f"{asked.depthwise_macs / asked.macs:.1%} of them in depthwise convolutions, and moves "
            f"{4 * asked.floats / 1e9:.2f} GB if nothing is fused. This machine, measured: "
            f"{matrix / 1e9:,.0f} GFLOP/s in a float32 matrix product, {memory / 1e9:.1f} GB/s of "
            f"memory; so {2 * asked.macs / matrix:.3g} s for the operations, "
            f"{4 * asked.floats / memory:.3g} s for the bytes.",
            "", f"Goals: {'; '.join(notes)}.",
        ]
    )  # fmt: skip


def likeness(vectors: np.ndarray) -> str:
    """Returns a sentence about how alike the embeddings of different images are."""
    centred = vectors - vectors.mean(axis=0)
    pairs = [
        float(cosines(centred[i : i + 1], centred[j : j + 1])[0])
        for i in range(len(centred))
        for j in range(i)
    ]
    return (
        f"Centred embeddings of different images have cosines of at most {max(pairs):.2f}, so the "
        "cosines above are not flattered by a common direction."
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row with its counterpart."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", choices=NETWORKS, default="l2-475")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, precision, folder = arguments.worker
        work(arguments.model, engine, precision, Path(folder))
        return
    network = NETWORKS[arguments.network]
    with tempfile.TemporaryDirectory() as folder:
        model = export(network, "saved_model", Path(folder))
        graph = export(network, "onnx", Path(folder))
        paths = {"tensorflow": model, "openvino": model, "onnxruntime": graph}
        found = measure(network, paths, arguments.rounds, Path(folder))
        spent = apart(limits.onnx_profile, f"{graph}/model.onnx", images(network), Path(folder))
    text = table(network, found, apart(limits.matrix_peak), apart(limits.memory_peak))
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in spent.items())
    text += f"\n\nWhere ONNX Runtime spends its time, by its own profiler: {shares}."
    if network == NETWORKS["l2-475"]:
        text += " " + likeness(found[network.kinds[0]]["vectors"])
    name = f"{network.architecture}, {network.side} x {network.side}, batch 1"
    section = "engines" if arguments.network == "l2-475" else f"engines: {arguments.network}"
    results.show(f"Engines: {name}", [text], is_written=arguments.write, section=section)


if __name__ == "__main__":
    main()
