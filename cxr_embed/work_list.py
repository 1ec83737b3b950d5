"""The list of images for workers elsewhere: files in the run's folder, not part of the graph.

References in the graph itself would travel to the service with the job, whose graph Dataflow limits
to 10 MB, and into each worker's memory: those of 377,110 images are 110 MB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

from cxr_embed import storage
from cxr_embed.sources import ImageRef

# References in a file: two or three megabytes.
_REFS_PER_FILE = 10_000

_FOLDER = "todo"


def write_work_list(run_folder: str, refs: Sequence[ImageRef]) -> list[str]:
    """Writes the references as JSON lines; returns the files' paths."""
    starts = range(0, len(refs), _REFS_PER_FILE)
    names = [
        storage.join(run_folder, _FOLDER, f"{number:05d}.jsonl") for number in range(len(starts))
    ]

    def write(name: str, start: int) -> None:
        lines = (json.dumps(astuple(ref)) + "\n" for ref in refs[start : start + _REFS_PER_FILE])
        storage.write_whole(name, "".join(lines).encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, names, starts))
    return names


def read_work_list(path: str) -> list[ImageRef]:
    """Reads one of the files.

    Raises:
        OSError: it cannot be read.
    """
    return [ImageRef(*json.loads(line)) for line in storage.read_bytes(path).splitlines()]
