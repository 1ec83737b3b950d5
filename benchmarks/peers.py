"""The main job beside what a user would write instead: the same radiographs, network and weights.

    pip install -c constraints.txt -e '.[bench,convert,test-convert]'
    PYTHONPATH=scripts python benchmarks/peers.py [--images 80] [--rounds 3] [--write]

The programs are in `ways/`. The network is an EfficientNet-B0 at 224 pixels down to its pooled
features: timm makes random weights, and the exporter converts them. The radiographs are 3056 x
2544, of 12 bits, half of them uncompressed and half JPEG 2000. Each way is a process of its own,
from its start to its last file; they take turns. Each renders in its own way, so the embeddings
differ a little; how alike they are to the main job's stands in the table.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import results
from workload import ROOT, apart, full_size_dicoms

WAYS = {
    "cxr-embed": None,
    "cxr-embed, OpenVINO": None,
    "pydicom and timm, in a loop": "plain_loop.py",
    "torchxrayvision's reader and transforms, timm": "torchxrayvision_way.py",
    "tf.data, SavedModel": "tf_data.py",
    "Ray Data, timm": "ray_data.py",
}
_HERE = Path(__file__).resolve().parent / "ways"


def make_weights(folder: Path) -> None:
    """Writes random weights by timm, and exports them as a SavedModel."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = timm.create_model("tf_efficientnet_b0", num_classes=0)
    save_file(network.state_dict(), folder / "weights.safetensors")
    from cxr_embed.efficientnet.export import export_model

    export_model(
        folder / "model", architecture="efficientnet-b0", embedding_size=0,
        weights=folder / "weights.safetensors",
    )  # fmt: skip


def command(way: str, images: Path, folder: Path, output: Path) -> list[str]:
    """Returns the command line of a way."""
    program = WAYS[way]
    if program is None:
        engine = "openvino" if "OpenVINO" in way else "tensorflow"
        return [
            sys.executable, "-m", "run_inference", f"--input_path={images}", "--verbosity=-1",
            f"--output_path={output}", f"--model_path={folder / 'model'}", f"--engine={engine}",
        ]  # fmt: skip
    weights = "model" if program == "tf_data.py" else "weights.safetensors"
    return [sys.executable, str(_HERE / program), str(images), str(folder / weights), str(output)]


def run(arguments: list[str]) -> tuple[float, float]:
    """Returns seconds and the most bytes that the process and its children ever shared among them.

    Memory that processes share counts once (PSS), looked at twice a second.
    """
    since = time.perf_counter()
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peak))
        watcher.start()
        _, errors = process.communicate()
        seconds = time.perf_counter() - since
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{arguments}: {errors.decode()[-2000:]}")
    return seconds, peak[0]


def _watch(pid: int, peak: list[float]) -> None:
    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            peak[0] = max(peak[0], sum(_memory([parent, *parent.children(recursive=True)])))
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        return


def _memory(processes: list[psutil.Process]) -> Iterator[float]:
    for process in processes:
        try:
            yield process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def lines(way: str) -> int:
    """Returns how many lines a user writes, without blank ones and docstrings of one line."""
    program = WAYS[way]
    if program is None:
        return 1
    text = (_HERE / program).read_text().splitlines()
    return sum(bool(line.strip()) and not line.strip().startswith('"""') for line in text)


def vectors(output: Path) -> np.ndarray:
    """Returns what a way has written, by name."""
    files = sorted(output.glob("*.npy"))
    if files:
        return np.stack([np.load(file) for file in files])
    from cxr_embed import load_embeddings

    loaded = load_embeddings(str(output))
    return loaded.values[np.argsort(loaded.ids)]


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apart(make_weights, folder)
        for syntax in ("explicit", "j2k_lossless"):
            apart(full_size_dicoms, folder / "images", arguments.images // 2, syntax)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        written = {}
        for turn in range(arguments.rounds):
            for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                output = folder / "output"
                found[way].append(run(command(way, folder / "images", folder, output)))
                written[way] = vectors(output)
                shutil.rmtree(output)
                print(way, *found[way][-1], file=sys.stderr)
        text = table(arguments.images, found, written)
    print(text)
    if arguments.write:
        results.write_section("peers", text)


def table(
    count: int, found: dict[str, list[tuple[float, float]]], written: dict[str, np.ndarray]
) -> str:
    """Returns the section for RESULTS.md."""
    first = next(iter(WAYS))
    base = statistics.median(seconds for seconds, _ in found[first])
    rows = [
        f"## Beside other ways: {count} radiographs, EfficientNet-B0 at 224 pixels", "",
        "| way | images/s | of cxr-embed's | memory, GB | lines | lowest cosine |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for way, measured in found.items():
        seconds = statistics.median(each for each, _ in measured)
        rows.append(
            f"| {way} | {count / seconds:.1f} | {base / seconds:.2f} | "
            f"{max(peak for _, peak in measured) / 1e9:.2f} | {lines(way)} | "
            f"{_lowest_cosine(written[way], written[first]):.4f} |"
        )
    rows += [
        "",
        f"Medians of {len(found[first])} rounds, alternating, of whole processes, start included. "
        "Half of the radiographs are uncompressed and half JPEG 2000, 3056 x 2544 at 12 bits. "
        "Memory counts all processes of a way. Lines are those that a user writes. Only "
        "cxr-embed says which images failed and why, writes whole files, and resumes a killed run.",
    ]
    return "\n".join(rows)


def _lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


if __name__ == "__main__":
    main()
