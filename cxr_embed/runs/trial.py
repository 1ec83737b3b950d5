"""A short trial of a job: how fast a sample is read, embedded and written, and what all will take.

The three parts are measured one after the other, each with the threads and batches that the main
job would use, so that it shows which of them to change first.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cxr_embed import storage
from cxr_embed.elements import ImageRef
from cxr_embed.errors import ImageRejected, ImageSkipped, UsageError
from cxr_embed.imaging.image_files import admit, read_image, too_large
from cxr_embed.models.settings import ModelSettings
from cxr_embed.models.sharing import SharedModel
from cxr_embed.records import Record, encode_record
from cxr_embed.runs.execute import cover_of
from cxr_embed.runs.plan import Job

# Images in the sample, and fitted images that are kept for the model.
_SAMPLE, _KEPT = 4_000, 32
_UPLOADS, _MOST_RECORDS = 8, 2_000


@dataclass(frozen=True)
class Rate:
    """Images per wall-clock time: `count` images in `seconds`."""

    count: int
    seconds: float

    @property
    def seconds_each(self) -> float:
        """Wall-clock seconds per image."""
        return self.seconds / self.count


@dataclass
class Trial:
    """What a trial has measured.

    Attributes:
        reading: reading, decoding, rendering and fitting, with all threads.
        model: model calls, the first left out.
        writing: encoding and writing records.
        bytes_each: mean size of an image that was read.
        threads: threads that read.
        not_embedded: images of the sample that were skipped or failed, by reason.
        others: model calls on other engines, by engine.
    """

    reading: Rate
    model: Rate
    writing: Rate
    bytes_each: float
    threads: int
    not_embedded: Counter[str] = field(default_factory=Counter)
    others: dict[str, Rate] = field(default_factory=dict)

    def seconds_each(self, model_shares_cores: bool) -> float:
        """Returns estimated seconds per image of the main job.

        Args:
            model_shares_cores: the model runs on the cores that read. Both then take turns, else
                they overlap.
        """
        reading, model = self.reading.seconds_each, self.model.seconds_each
        both = reading + model if model_shares_cores else max(reading, model)
        return both + self.writing.seconds_each

    def largest_part(self) -> str:
        """Returns the name of the slowest part: `reading`, `model` or `writing`."""
        return max(("reading", "model", "writing"), key=lambda n: getattr(self, n).seconds_each)

    def faster_engine(self) -> str | None:
        """Returns the fastest other engine if it is at least 1.2 times as fast."""
        if not self.others:
            return None
        name = min(self.others, key=lambda engine: self.others[engine].seconds_each)
        is_faster = self.model.seconds_each >= 1.2 * self.others[name].seconds_each
        return name if is_faster else None


def run_trial(
    job: Job,
    model: SharedModel,
    threads: int,
    seconds: float,
    log: Callable[[str], None],
    *,
    others: Sequence[ModelSettings] = (),
) -> Trial:
    """Measures a job on a sample of its images; its output is left as it was.

    Args:
        job: the job; its `output_path` may be empty for a temporary folder.
        model: its model.
        threads: threads that read.
        seconds: time for each of reading and model.
        log: logs one line.
        others: the same model on other engines, to be measured beside it.

    Raises:
        UsageError: no image of the sample can be embedded.
    """
    not_embedded: Counter[str] = Counter()
    log(f"reading for {seconds:g} s")
    reading, fitted, bytes_read = _read(job, model, threads, seconds, not_embedded)
    if not fitted:
        reasons = ", ".join(f"{count} {reason}" for reason, count in not_embedded.items())
        raise UsageError(f"none of {sum(not_embedded.values())} sampled images was read: {reasons}")
    log(f"embedding for {seconds:g} s")
    running, vectors = _run(model, fitted, job.batch_size or model.model.best_batch_size, seconds)
    for reason in (v.reason for v in vectors if isinstance(v, ImageRejected)):
        not_embedded[reason] += 1
    good = [vector for vector in vectors if not isinstance(vector, ImageRejected)]
    if not good:
        raise UsageError(f"the model embeds none of the sampled images: {vectors[0]}")
    log("writing records")
    writing = _write(job.output_path, good, seconds / 5)
    trial = Trial(reading, running, writing, bytes_read / reading.count, threads, not_embedded)
    for settings in others:
        log(f"embedding for {seconds:g} s with {settings.engine}")
        other = SharedModel(settings)
        trial.others[settings.engine], _ = _run(
            other, fitted, job.batch_size or other.model.best_batch_size, seconds
        )
    return trial


def sample(refs: Sequence[ImageRef], size: int = _SAMPLE) -> list[ImageRef]:
    """Returns images from all over a list, in an order that any part of it represents.

    Archives are sorted by patient and time, so the first images are not like the others.
    """
    chosen = np.random.default_rng(0).permutation(len(refs))[:size]
    return [refs[index] for index in chosen]


def _read(
    job: Job, model: SharedModel, threads: int, seconds: float, not_embedded: Counter[str]
) -> tuple[Rate, list[Any], int]:
    """Returns the rate, some fitted images, and the bytes that were read."""
    end = time.perf_counter() + seconds
    fitted: list[Any] = []

    def read(ref: ImageRef) -> int | str | None:
        if time.perf_counter() > end:
            return None
        try:
            image, size = _read_one(job, ref, model)
        except ImageSkipped as skipped:
            return skipped.reason
        except ImageRejected as rejected:
            return rejected.reason
        except storage.FileTooLarge as error:
            return too_large(error.limit).reason
        if len(fitted) < _KEPT:
            fitted.append(image)
        return size

    since = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        found = [size for size in pool.map(read, sample(job.refs)) if size is not None]
    taken = time.perf_counter() - since
    not_embedded.update(reason for reason in found if isinstance(reason, str))
    sizes = [size for size in found if isinstance(size, int)]
    return Rate(max(1, len(sizes)), taken), fitted, sum(sizes)


def _read_one(job: Job, ref: ImageRef, model: SharedModel) -> tuple[Any, int]:
    judged_by: dict[str, Any] = {
        "file_type": job.file_type, "max_pixels": job.max_pixels, "views": job.views
    }  # fmt: skip
    stored = storage.read_file(ref.path, functools.partial(admit, **judged_by), ref.location)
    cover = cover_of(job, model.model)
    radiograph = read_image(stored.data, rendering=job.rendering, cover=cover, **judged_by)
    image = model.fit(radiograph)
    if isinstance(image, ImageRejected):
        raise image
    return image, len(stored.data)


def _run(
    model: SharedModel, fitted: list[Any], batch_size: int, seconds: float
) -> tuple[Rate, list[np.ndarray | ImageRejected]]:
    """Returns the rate, and what came of the fitted images of the first calls."""
    images = itertools.cycle(fitted)

    def batch() -> list[Any]:
        return list(itertools.islice(images, batch_size))

    vectors = model.embed_each(batch())  # the first call prepares the model
    count, since = 0, time.perf_counter()
    while not count or time.perf_counter() - since < seconds:
        found = model.embed_each(batch())
        count += batch_size
        if len(vectors) < len(fitted):
            vectors += found
    return Rate(count, time.perf_counter() - since), vectors[: len(fitted)]


def _write(output_path: str, vectors: list[np.ndarray], seconds: float) -> Rate:
    """Writes records to where the output is to be, and removes them again."""
    if storage.is_remote(output_path):
        return _write_in(
            storage.join(output_path, f"_trial-{uuid.uuid4().hex[:8]}"), vectors, seconds
        )
    nearest = Path(output_path or tempfile.gettempdir()).absolute()
    while not nearest.is_dir():
        nearest = nearest.parent
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=nearest) as folder:
        return _write_in(folder, vectors, seconds)


def _write_in(folder: str, vectors: list[np.ndarray], seconds: float) -> Rate:
    end = time.perf_counter() + seconds

    def write(number: int) -> str | None:
        if number and time.perf_counter() > end:
            return None
        path = storage.join(folder, f"{number}.tfrecord")
        storage.write_whole(path, encode_record(Record(path, vectors[number % len(vectors)])))
        return path

    since = time.perf_counter()
    with ThreadPoolExecutor(_UPLOADS if storage.is_remote(folder) else 1) as pool:
        written = [path for path in pool.map(write, range(_MOST_RECORDS)) if path is not None]
        taken = time.perf_counter() - since
        list(pool.map(storage.remove, written))
    return Rate(len(written), taken)
