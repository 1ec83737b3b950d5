"""An EfficientNet on a GPU: each engine and precision, alone and from files to records.

    pip install -c constraints.txt -e '.[onnx]' 'tensorflow[and-cuda]'
    PYTHONPATH=scripts python benchmarks/gpu.py --engine tensorflow [--write]
    pip uninstall onnxruntime; pip install onnxruntime-gpu
    PYTHONPATH=scripts python benchmarks/gpu.py --engine onnxruntime [--write]

It makes its own radiographs and weights. Embeddings are compared with those of the CPU whose
convolutions are summed in float64. TF32 is off in cxr-embed and is on here where the table says so.
`--device=cpu --network=b0-224 --batches 1 4` tries the program without a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import limits
import numpy as np
import results
from engines import NETWORKS, Network, cosines, export, images
from workload import apart, full_size_dicoms, run_job

from cxr_embed.efficientnet.architecture import ARCHITECTURES

PRECISIONS = {
    "tensorflow": ("float32", "TF32", "bfloat16"),
    "onnxruntime": ("float32", "TF32", "float16"),
}
_FILES = 400


def exact(model_path: str, batch: np.ndarray) -> np.ndarray:
    """Returns the embeddings of images on the CPU, each convolution summed in float64.

    Args:
        model_path: the exported SavedModel, whose folded weights are taken.
        batch: float32 [n, H, W, 3].
    """
    import tensorflow as tf

    from cxr_embed.efficientnet import graph

    with tf.device("/CPU:0"):
        loaded = tf.saved_model.load(model_path)
        network = loaded.network
        described = json.loads(Path(model_path, "cxr_embed_model.json").read_text())
        architecture = ARCHITECTURES[described["architecture"]]
        places = {item.name: at for at, item in enumerate(graph.convolutions(architecture))}
        depthwise = {item.name: item.depthwise for item in graph.convolutions(architecture)}

        def convolve(inputs: Any, name: str, stride: int = 1) -> Any:
            at = places[name]
            flow = graph.raw_convolution(
                tf.cast(inputs, tf.float64), tf.cast(network._kernels[at], tf.float64),
                stride=stride, depthwise=depthwise[name],
            )  # fmt: skip
            return tf.cast(flow + tf.cast(network._biases[at], tf.float64), tf.float32)

        return np.concatenate(
            [
                tf.linalg.matmul(
                    tf.cast(
                        graph.pooled_features(architecture, image[np.newaxis], convolve), "double"
                    ),
                    tf.cast(network._embedding, "double"),
                ).numpy()
                for image in batch
            ]
        )


def to_float16(source: str, folder: Path) -> str:
    """Writes a graph in float16 whose input and output stay float32; returns its file."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    folder.mkdir()
    half = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(half, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    return str(folder / "model.onnx")


def work(model: str, engine: str, precision: str, device: str, folder: Path) -> None:
    """Measures a loaded model at each batch, and writes the embeddings."""
    request = json.loads((folder / "request.json").read_text())
    batch = np.load(folder / "images.npy")
    from cxr_embed import models

    if engine == "onnxruntime" and precision == "TF32":
        from cxr_embed.models.onnx import session

        session._CUDA_OPTIONS["use_tf32"] = "1"
    settings = models.ModelSettings(
        model, engine=engine, device=device, batch_size=max(request["batches"]),
        precision="bfloat16" if precision == "bfloat16" else "float32",
    )  # fmt: skip
    loaded = models.load(settings)
    if engine == "tensorflow" and precision == "TF32":
        from cxr_embed.models.tensorflow import devices
        from cxr_embed.models.tensorflow.runtime import import_tensorflow

        devices._apply_precision = lambda *_: None  # type: ignore[assignment]
        import_tensorflow().config.experimental.enable_tensor_float_32_execution(True)
    rates = {}
    for size in request["batches"]:
        some = [batch[number % len(batch)] for number in range(size)]
        loaded.embed(some)
        count, since = 0, time.perf_counter()
        while time.perf_counter() - since < request["seconds"]:
            loaded.embed(some)
            count += size
        rates[size] = count / (time.perf_counter() - since)
    vectors = np.concatenate([loaded.embed([image]) for image in batch])
    np.save(folder / "vectors.npy", vectors)
    print(json.dumps({"rates": rates, "device": loaded.device}))


def device_peaks(device: str) -> tuple[float, float, float, str]:
    """Returns operations a second in float32 and half precision, bytes a second, and a name."""
    import tensorflow as tf

    place = f"/{device.upper()}:0"
    with tf.device(place):
        found = [_product(tf, dtype) for dtype in (tf.float32, tf.bfloat16)]
        a, b = tf.Variable(tf.zeros(2**27)), tf.ones(2**27)

        def add() -> Any:
            return a.assign_add(b)[0].numpy()  # waits for the device

        seconds = limits.median_seconds(add, 9)
    name = "CPU"
    if device == "gpu":
        gpu = tf.config.list_physical_devices("GPU")[0]
        name = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return found[0], found[1], 3 * 4 * 2**27 / seconds, name


def _product(tf: Any, dtype: Any, side: int = 8192) -> float:
    side = side if tf.config.list_physical_devices("GPU") else 2048
    a = tf.cast(tf.random.normal((side, side)), dtype)

    def multiply() -> Any:
        return tf.linalg.matmul(a, a)[0, 0].numpy()

    return 2 * side**3 / limits.median_seconds(multiply, 9)


def measure(
    network: Network, engine: str, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """Returns one measurement for each precision of an engine."""
    saved = export(network, "saved_model", folder)
    graph = export(network, "onnx", folder) + "/model.onnx" if engine == "onnxruntime" else ""
    several = images(network)[:6]
    np.save(folder / "images.npy", several)
    wanted = {"batches": arguments.batches, "seconds": arguments.seconds}
    (folder / "request.json").write_text(json.dumps(wanted))
    true = apart(exact, saved, several)
    apart(full_size_dicoms, folder / "files", arguments.files, "explicit")
    found = []
    for precision in PRECISIONS[engine]:
        model = saved if engine == "tensorflow" else graph
        if precision == "float16":
            model = apart(to_float16, graph, folder / "half")
        command = [sys.executable, __file__, "--worker", engine, precision, str(folder)]
        command += ["--model", model, "--device", arguments.device]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        one = json.loads(ran.stdout.splitlines()[-1])
        one |= {"engine": engine, "precision": precision}
        one["cosine"] = float(cosines(np.load(folder / "vectors.npy"), true).min())
        if precision != "TF32":  # the main job never uses it
            one["to_records"] = _to_records(model, one, arguments, folder)
        print(one, file=sys.stderr)
        found.append(one)
    return found


def _to_records(
    model: str, one: dict[str, Any], arguments: argparse.Namespace, folder: Path
) -> float:
    """Returns images a second of the main job, its start left out by the difference of two runs."""
    best = max(one["rates"], key=lambda size: one["rates"][size])
    flags = {
        "input_path": folder / "files", "model_path": model, "engine": one["engine"],
        "device": arguments.device, "batch_size": best,
        "precision": "bfloat16" if one["precision"] == "bfloat16" else "float32",
    }  # fmt: skip
    few = arguments.files // 4
    seconds = []
    for limit in (few, arguments.files):
        output = folder / f"out-{one['engine']}-{one['precision']}-{limit}"
        seconds.append(run_job(output_path=output, limit=limit, **flags).seconds)
    return (arguments.files - few) / (seconds[1] - seconds[0])


def table(network: Network, found: list[dict[str, Any]], peaks: tuple[Any, ...]) -> str:
    """Returns the section for RESULTS.md."""
    single, half, memory, name = peaks
    asked = limits.needs(ARCHITECTURES[network.architecture], network.side)
    batches = list(found[0]["rates"])
    lines = [
        f"## {name}: {network.architecture}, {network.side} x {network.side}", "",
        "| engine | precision | " + " | ".join(f"images/s at {size}" for size in batches)
        + " | share of matrix peak | share of bandwidth, unfused | lowest cosine | "
        "files to records |",
        "| --- | --- |" + " --- |" * (len(batches) + 4),
    ]  # fmt: skip
    for one in found:
        best = max(one["rates"].values())
        is_half = one["precision"] in ("bfloat16", "float16")
        peak, width = (half, 2) if is_half else (single, 4)
        records = one.get("to_records")
        shown = "-" if records is None else f"{records:.1f} ({records / best:.2f} of the model's)"
        lines.append(
            f"| {one['engine']} | {one['precision']} | "
            + " | ".join(f"{one['rates'][size]:.3g}" for size in batches)
            + f" | {2 * asked.macs * best / peak:.2f} | "
            f"{width * asked.floats * best / memory:.2f} | {one['cosine']:.6f} | {shown} |"
        )
    lines += [
        "",
        f"An image takes {2 * asked.macs / 1e9:,.1f} GFLOP and moves "
        f"{4 * asked.floats / 1e9:.2f} GB in float32 if nothing is fused, half of it in half "
        f"precision. Measured on this device: {single / 1e12:.2f} TFLOP/s in float32, "
        f"{half / 1e12:.2f} in bfloat16, {memory / 1e9:,.0f} GB/s.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--engine", choices=PRECISIONS, default="tensorflow")
    parser.add_argument("--network", choices=NETWORKS, default="l2-475")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=10, help="for each batch")
    parser.add_argument("--files", type=int, default=_FILES)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, precision, folder = arguments.worker
        work(arguments.model, engine, precision, arguments.device, Path(folder))
        return
    network = NETWORKS[arguments.network]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(network, arguments.engine, arguments, Path(folder))
    text = table(network, found, apart(device_peaks, arguments.device))
    print(text)
    if arguments.write:
        results.write_section(f"{arguments.device}: {arguments.engine}, {arguments.network}", text)


if __name__ == "__main__":
    main()
