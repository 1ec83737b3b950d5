"""The list of images at the top of the graph: in the graph itself, or in files for other machines.

References in the graph would travel to the service with the job, whose graph Dataflow limits to
10 MB, and into each worker's memory: those of 377,110 images are 110 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from typing import Any

import apache_beam as beam

from cxr_embed import storage
from cxr_embed.elements import ImageRef

# References in a file: two or three megabytes.
_REFS_PER_FILE = 10_000

_FOLDER = "todo"


class ListedImages(beam.PTransform):
    """PBegin -> PCollection of `ImageRef`, from files that `write_work_list` has written."""

    def __init__(self, files: list[str]) -> None:
        super().__init__()
        self._files = files

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        read = beam.ParDo(_ReadWorkList()).with_output_types(ImageRef)
        return begin | "Files" >> beam.Create(self._files) | "References" >> read


class _ReadWorkList(beam.DoFn):
    """A file's path -> the references in it."""

    def __init__(self) -> None:
        self._places = storage.settings()

    def setup(self) -> None:
        storage.configure(self._places)

    def process(self, path: str) -> Iterator[ImageRef]:
        yield from read_work_list(path)


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
    return [_ref(*json.loads(line)) for line in storage.read_bytes(path).splitlines()]


def _ref(*fields: Any) -> ImageRef:
    ref = ImageRef(*fields)
    return replace(ref, outputs=tuple(ref.outputs))  # JSON has no tuples
