"""How many threads read, and how many chunks are under way, where the user leaves it open."""

from __future__ import annotations

import os
from dataclasses import dataclass

# A thread that waits for a bucket leaves its core to others.
_MORE_FOR_NETWORK = 8

# With batches: one in the model, one that is full and waits for its turn, one that fills.
_BATCHED_WALKS = 3


@dataclass(frozen=True)
class Threads:
    """What works at a time in one process.

    Attributes:
        decode: threads that read, decode, render and fit.
        walks: chunks of images under way. With a batch of one, each walk is a thread that reads
            for itself; with larger ones the walks share the decoding threads.
    """

    decode: int
    walks: int


def choose(
    asked: int, *, batch_size: int, device: str, is_remote: bool, cores: int | None = None
) -> Threads:
    """Returns the threads for a run.

    Args:
        asked: --decode_threads; 0 lets this function choose.
        batch_size: images per model call.
        device: where the model runs: `cpu`, or anything else.
        is_remote: whether images or records are in a bucket.
        cores: cores to count on; by default those that this process may use.
    """
    cores = cores or usable_cores()
    # A model on the CPU takes all cores by itself: one thread is in it, and the others prepare what
    # comes next. Beside an accelerator, or a model elsewhere, every core decodes, and as many more
    # threads cover the waits.
    chosen = cores + 1 if device == "cpu" else 2 * cores
    decode = asked or chosen + _MORE_FOR_NETWORK * is_remote
    return Threads(decode, decode if batch_size == 1 else _BATCHED_WALKS)


def usable_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
