"""What the benchmarks run on: radiographs, small models, and the main job in its own process."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from make_sample_dicoms import make_dataset

from cxr_embed.elements import ImageRef
from cxr_embed.models import ModelSettings
from cxr_embed.runs.execute import Result, execute_run
from cxr_embed.runs.fingerprint import make_fingerprint
from cxr_embed.runs.plan import Job, Plan, RunPlan

ROOT = Path(__file__).resolve().parent.parent
_DIFFERENT = 40


def tiny_dicoms(folder: Path, count: int) -> Path:
    """Writes 64 x 64 radiographs with the headers of real ones, 1,000 to a folder; all differ."""
    bases = [_tiny(seed) for seed in range(_DIFFERENT)]
    noise = np.random.default_rng(0)
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"p{number // 1000:03d}"
            below.mkdir(parents=True, exist_ok=True)
        data = bytearray(bases[number % _DIFFERENT])
        for position in noise.integers(len(data) - 8000, len(data) - 100, 8) // 2 * 2:
            data[position] ^= 1
        (below / f"image{number:06d}.dcm").write_bytes(data)
    return folder


def _tiny(seed: int) -> bytes:
    return _as_bytes(make_dataset(seed, rows=64, columns=64, transfer_syntax="explicit"))


def full_size_dicoms(folder: Path, count: int, syntax: str, bits: int = 12) -> Path:
    """Writes radiographs of 3056 x 2544 in one transfer syntax; four differ, the rest repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{syntax}{number:04d}.dcm"
        if number < 4:
            path.write_bytes(full_size(number, syntax, bits))
        else:
            path.write_bytes((folder / f"{syntax}{number % 4:04d}.dcm").read_bytes())
    return folder


def full_size(seed: int, syntax: str, bits: int = 12) -> bytes:
    """Returns one radiograph as large as MIMIC-CXR's, with one window and no LUT."""
    return _as_bytes(
        make_dataset(
            seed, rows=3056, columns=2544, transfer_syntax=syntax, BitsStored=bits,
            PixelRepresentation=0, PhotometricInterpretation="MONOCHROME1", ViewPosition="PA",
            VOILUTSequence=None, RescaleSlope=None, RescaleIntercept=None,
            WindowCenter="2048", WindowWidth="3500",
        )
    )  # fmt: skip


def _as_bytes(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def matrix_model(folder: Path, side: int = 16, floats: int = 4096) -> Path:
    """Saves a model that is one matrix product."""
    import tensorflow as tf

    class Product(tf.Module):
        def __init__(self) -> None:
            weights = tf.random.stateless_normal([side * side, floats], [0, 1]) / side
            self.weights = tf.Variable(weights)

        @tf.function(input_signature=[tf.TensorSpec([None, side, side, 1], tf.float32)])
        def embed(self, image: Any) -> Any:
            return {"embedding": tf.matmul(tf.reshape(image, [-1, side * side]), self.weights)}

    module = Product()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.embed})
    return folder


def apart(make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls a function in a process of its own.

    A process starts with its parent's peak memory, as `wait4` counts it, so whoever measures with
    `run_job` stays small.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(make, *arguments, **named).result()


class Ran(NamedTuple):
    """A run of the main job in its own process.

    Attributes:
        manifest: what it wrote of itself.
        seconds: from start to exit.
        peak_bytes: the most memory it ever took, decoding processes left out.
    """

    manifest: dict[str, Any]
    seconds: float
    peak_bytes: int


def run_job(*program: str, checkout: Path = ROOT, **flags: Any) -> Ran:
    """Runs the main job of a checkout apart, `program` in place of `-m run_inference` if given."""
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, *(program or ("-m", "run_inference")), *arguments, "--verbosity=-1"]
    path = f"{checkout}{os.pathsep}{checkout / 'pipelines'}"
    started = time.perf_counter()
    # `python -m` looks into the current folder first.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, cwd=checkout, env=os.environ | {"PYTHONPATH": path}
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    last = max((Path(flags["output_path"]) / "_runs").iterdir())
    manifest = json.loads((last / "manifest.json").read_text())
    return Ran(manifest, seconds, 1024 * usage.ru_maxrss)


def run_job_here(
    refs: Sequence[ImageRef], output: Path, model: ModelSettings, **flags: Any
) -> Result:
    """Runs the main job in this process, whose model is loaded already."""

    @contextlib.contextmanager
    def watch(*_: Any) -> Iterator[None]:
        yield

    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    job = Job(list(refs), str(output), model, **flags)
    # The model's content is not hashed, so that the job finds the copy that is loaded.
    fingerprint = make_fingerprint(
        model_sha256=model.content, model_config=model.config.as_dict(), rendering=job.rendering,
        precision=model.precision, engine=model.engine,
    )  # fmt: skip
    plan = Plan(job, job.refs, [], [], fingerprint, fingerprint)
    (result,) = execute_run(RunPlan(job, [plan]), lambda _: None, watch)
    if result.counts["embedded"] != len(refs):
        raise RuntimeError(f"{result.counts}, {result.failed}, {result.skipped}") from result.error
    return result


def alternating(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns each way's median seconds; they take turns, after one turn that does not count.

    A way that returns a number has measured itself.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            own = way()
            seconds = own if isinstance(own, float) else time.perf_counter() - started
            if turn:
                times[name].append(seconds)
                print(f"  {name}: {seconds:.3f} s", file=sys.stderr, flush=True)
    return {name: statistics.median(found) for name, found in times.items()}
