"""How many threads read images, where the user leaves it open."""

from __future__ import annotations

from cxr_embed.storage.parallel import usable_cores

# A thread that waits for a storage service leaves its core to others.
_MORE_FOR_NETWORK = 8


def reading_threads(asked: int, *, device: str, is_remote: bool, cores: int | None = None) -> int:
    """Returns the threads that read, decode and render in one process.

    Args:
        asked: --decode_threads; 0 lets this function choose.
        device: where the model runs: `cpu`, or anything else.
        is_remote: whether images or records are in a bucket.
        cores: cores to count on; by default those that this process may use.
    """
    cores = cores or usable_cores()
    # A model on the CPU takes all cores by itself: more threads than cores only push each other's
    # pixels out of the caches. Beside an accelerator, or a model elsewhere, as many more threads
    # cover the waits.
    chosen = cores if device == "cpu" else 2 * cores
    return asked or chosen + _MORE_FOR_NETWORK * is_remote
