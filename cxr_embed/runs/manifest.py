"""Builds `manifest.json`: a run's settings, conditions, counts and timings."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxr_embed.runs.fingerprint import package_version
from cxr_embed.runs.plan import Plan
from cxr_embed.runs.result import Result
from cxr_embed.storage.dicomweb_address import shown_query

if TYPE_CHECKING:
    from cxr_embed.pipeline.launch import Metrics

_REPORTED_PACKAGES = ("cxr-embed", "apache-beam", "tensorflow", "pydicom", "numpy")
_MICROSECONDS = "_microseconds"
_LATENCY = "inference_batch_latency_micro_secs"
_LOADING = "load_model_latency_milli_secs"


@dataclass
class Conditions:
    """Settings and timings of a run that the flags do not determine.

    `cover` is the size that images are decoded at, at least; None is the whole of them.
    """

    started: datetime.datetime
    batch_size: int
    device: str
    decode_threads: int
    load_seconds: float = 0.0
    first_image_seconds: float = 0.0
    cover: tuple[int, int] | None = None


def make_manifest(
    plan: Plan, result: Result, metrics: Metrics | None, conditions: Conditions
) -> dict[str, Any]:
    """Returns a run's manifest, ready for JSON; `metrics` is None if the graph did not run."""
    job = plan.job
    counters = metrics.counters if metrics else {}
    distributions = metrics.distributions if metrics else {}
    return {
        "run_id": plan.run_id,
        "command": _command(),
        "started": conditions.started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": plan.fingerprint,
        **({"output": plan.output} if plan.output else {}),
        "model_path": job.model.path,
        "model_revision": job.model.hub_commit,
        "device": conditions.device,
        "engine": job.model.engine,
        "batch_size": conditions.batch_size,
        "decode_threads": conditions.decode_threads,
        "runner": job.runner or "FnApiRunner",
        "versions": versions(),
        "machine": machine(),
        "counts": {**result.counts, "skipped": result.skipped, "failed": result.failed},
        "ended": result.ended,
        "handed_over": result.handed_over,
        "bytes_read": counters.get("bytes_read", 0),
        # Beam's own metrics of RunInference: batch sizes, latency, model size and load time.
        "inference": {
            "images": counters.get("num_inferences", 0),
            "failed_batches": counters.get("failed_batches_counter", 0),
            **distributions,
        },
        # The first two are wall time. The others are summed over threads.
        "seconds": {
            "wall": round(result.seconds, 3),
            "until_first_image": round(conditions.first_image_seconds, 3),
            **{
                name.removesuffix(_MICROSECONDS): round(value / 1e6, 3)
                for name, value in sorted(counters.items())
                if name.endswith(_MICROSECONDS)
            },
            "infer": round(distributions.get(_LATENCY, {}).get("sum", 0) / 1e6, 3),
            # Load time in this process plus load time in remote workers.
            "model_load": round(
                conditions.load_seconds + distributions.get(_LOADING, {}).get("sum", 0) / 1e3, 3
            ),
        },
        "images_per_second": round(result.images_per_second, 3),
    }


def _command() -> list[str]:
    """Returns the command line, without values of a query that may identify a patient."""
    words = list(sys.argv)
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.lstrip("-") != "dicomweb_query":
            continue
        if equals:
            words[at] = f"{name}={shown_query(value)}"
        elif at + 1 < len(words):
            words[at + 1] = shown_query(words[at + 1])
    return words


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the reported packages."""
    found = {name: package_version(name) for name in _REPORTED_PACKAGES}
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Returns the kind of this machine, without its host name."""
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}
