"""`ReadRadiographs`: references to rendered radiographs."""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import apache_beam as beam
import cv2

from cxr_embed import storage
from cxr_embed.elements import ImageRef
from cxr_embed.errors import ImageRejected, ImageSkipped, PlaceLost, PlaceUnavailable, one_line
from cxr_embed.faults import Streak, machine_fault
from cxr_embed.file_types import FILE_TYPES, OTHER_NAME
from cxr_embed.imaging.image_files import admit, read_image, too_large
from cxr_embed.imaging.rendering import RENDERINGS
from cxr_embed.outcomes import Failed, Skipped, Stage
from cxr_embed.pipeline.concurrency import Result, ThreadedDoFn, Threads
from cxr_embed.pipeline.threads import reading_threads
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, VIEWS, InputFacts, Radiograph
from cxr_embed.storage.parallel import usable_cores


class ReadResult(NamedTuple):
    """The outputs of `ReadRadiographs`.

    Attributes:
        radiographs: PCollection of (`ImageRef`, `Radiograph`).
        failed: PCollection of `Failed`: images that cannot be read, with the reason.
        skipped: PCollection of `Skipped`: images that are left out on purpose.
    """

    radiographs: beam.PCollection
    failed: beam.PCollection
    skipped: beam.PCollection


class ReadRadiographs(beam.PTransform):
    """Reads and renders image files: paths or `ImageRef` in, `ReadResult` out.

    Several images are read at a time, in threads, and the next ones are read while later steps
    work. The order within a bundle is kept. An image that cannot be read costs no other image;
    what would affect any image (no memory, no file handles) fails the bundle with `MachineFault`.

    Args:
        rendering: `cxr_foundation` or `dicom`, see `cxr_embed.read_radiograph`.
        file_type: `auto` to judge by the content, or `dicom`, `png`, `jpeg` to accept only that.
        views: `all`, or `frontal` to skip an image whose View Position is present and is neither
            AP nor PA.
        max_pixels: larger images fail, judged by their header.
        threads: threads that read, in one process; 0 chooses by cores.
        waiting: radiographs that are read already and wait for the next step: a batch of the model,
            so that the next one is read while it works. At least one for each core.
        cover: rows and columns that a model needs: JPEG 2000 and HTJ2K are decoded at the lowest
            resolution that has them. See `cxr_embed.imaging.image_files.read_image`.

    Raises:
        ValueError: an argument is none of the choices.
    """

    def __init__(
        self,
        *,
        rendering: str = "cxr_foundation",
        file_type: str = "auto",
        views: str = "all",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        threads: int = 0,
        waiting: int = 0,
        cover: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("rendering", rendering, RENDERINGS),
            ("file_type", file_type, FILE_TYPES),
            ("views", views, VIEWS),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r}: pass one of {', '.join(choices)}")
        judged_by = {"file_type": file_type, "max_pixels": max_pixels, "views": views}
        rendered_by = {"rendering": rendering, "cover": cover}
        self._read = _Read(judged_by, rendered_by, threads, waiting)

    def expand(self, images: beam.PCollection) -> ReadResult:
        outputs = images | "Files" >> beam.ParDo(self._read).with_output_types(
            tuple[ImageRef, Radiograph], failed=Failed, skipped=Skipped
        ).with_outputs("failed", "skipped", main="radiographs")
        return ReadResult(outputs.radiographs, outputs.failed, outputs.skipped)


class _Read(ThreadedDoFn):
    """A path or ImageRef -> (ImageRef, Radiograph), Failed or Skipped."""

    def __init__(
        self, judged_by: dict[str, Any], rendered_by: dict[str, Any], threads: int, waiting: int
    ) -> None:
        self._judged_by, self._rendered_by = judged_by, rendered_by
        self._count, self._waiting = threads, waiting
        self._places = storage.settings()

    def threads(self) -> Threads:
        count = reading_threads(self._count, device="cpu", is_remote=True)
        return Threads("read", count, count + max(self._waiting, usable_cores()))

    def setup(self) -> None:
        super().setup()
        storage.configure(self._places)
        # Images are spread over threads already; OpenCV's own would only compete with them.
        cv2.setNumThreads(1)
        self._unavailable = Streak("reading", fault=PlaceLost)

    def work(self, element: str | ImageRef) -> Result:
        ref = element if isinstance(element, ImageRef) else ImageRef.of(element)
        counts: dict[str, int] = {}
        try:
            return Result(None, (ref, self._read(ref, counts)), counts)
        except ImageSkipped as skipped:
            return _ended("skipped", _skipped(ref, skipped.reason, skipped.detail), counts)
        except ImageRejected as rejected:
            return _rejected(ref, rejected, counts)
        except storage.BadMember as error:
            return _rejected(ref, ImageRejected(error.reason, error.detail), counts)
        except storage.FileTooLarge as error:
            return _rejected(ref, too_large(error.limit), counts)
        except (OSError, MemoryError, ValueError) as error:
            if fault := machine_fault(error, Stage.READ, ref.path):
                raise fault from error
            detail = one_line(getattr(error, "strerror", None) or error)
            if isinstance(error, PlaceUnavailable):
                self._unavailable.failed(error)
                return _ended("failed", _failed(ref, "unreachable", detail), counts)
            return _ended("failed", _failed(ref, "read_error", detail), counts)

    def _read(self, ref: ImageRef, counts: dict[str, int]) -> Radiograph:
        since = time.perf_counter()
        judge = functools.partial(admit, **self._judged_by)
        stored = storage.read_file(ref.path, judge, ref.location)
        self._unavailable.succeeded()
        read = time.perf_counter()
        counts["bytes_read"] = len(stored.data)
        counts["read_microseconds"] = round(1e6 * (read - since))
        try:
            radiograph = read_image(stored.data, **self._judged_by, **self._rendered_by)
        finally:
            decoded = time.perf_counter()
            counts["decode_and_render_microseconds"] = round(1e6 * (decoded - read))
        radiograph.source = InputFacts(len(stored.data), stored.crc32c)
        return radiograph


def _rejected(ref: ImageRef, rejected: ImageRejected, counts: dict[str, int]) -> Result:
    # Folders of images hold reports and licences, too. A file that a search came across, that is
    # named like something else and is something else, is not a failure.
    if rejected.reason == "not_an_image" and not ref.is_listed and OTHER_NAME.search(ref.path):
        return _ended("skipped", _skipped(ref, "not_an_image", rejected.detail), counts)
    return _ended("failed", _failed(ref, rejected.reason, rejected.detail), counts)


def _skipped(ref: ImageRef, reason: str, detail: str) -> Skipped:
    return Skipped(ref.dicom_id, ref.path, reason, detail, ref.outputs)


def _failed(ref: ImageRef, reason: str, detail: str) -> Failed:
    return Failed(ref.dicom_id, ref.path, reason, detail, ref.outputs)


def _ended(tag: str, outcome: Failed | Skipped, counts: dict[str, int]) -> Result:
    counts[f"{tag}/{outcome.reason}"] = 1
    return Result(tag, outcome, counts)
