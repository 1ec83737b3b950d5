"""`WriteRecords`: embeddings to one `.tfrecord` each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import apache_beam as beam

from cxr_embed import storage
from cxr_embed.elements import LAYOUTS, Embedding, record_path
from cxr_embed.errors import one_line
from cxr_embed.faults import machine_fault
from cxr_embed.outcomes import Embedded, Failed, Stage
from cxr_embed.pipeline.concurrency import Result, ThreadedDoFn, Threads
from cxr_embed.records import Record, encode_record
from cxr_embed.storage.file_state import file_state

_UPLOADS = 16


class WriteResult(NamedTuple):
    """The outputs of `WriteRecords`.

    Attributes:
        embedded: PCollection of `Embedded`: images whose record is in the output now.
        failed: PCollection of `Failed`: images whose record cannot be written.
    """

    embedded: beam.PCollection
    failed: beam.PCollection


class WriteRecords(beam.PTransform):
    """Writes one `<dicom_id>.tfrecord` for each embedding: `Embedding` in, `WriteResult` out.

    A record appears whole or not at all. What would affect any record (a full disk, no permission)
    fails the bundle with `MachineFault`. An embedding of one of several outputs goes into a folder
    with the output's name.

    Args:
        output_path: a folder, made if missing, or a bucket's prefix.
        layout: `flat`; or `mirror` to keep the folders that `Embedding.folder` names. With `flat`,
            two images of one `dicom_id` write the same record, and the last one wins on a disk.
        replace: in a bucket, replace records that hold other bytes; by default they are failures.
        check: called on each worker before its first record; it raises to stop the work.

    Raises:
        ValueError: `layout` is none of the choices.
    """

    def __init__(
        self,
        output_path: str,
        layout: str = "flat",
        *,
        replace: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout {layout!r}: pass one of {', '.join(LAYOUTS)}")
        self._write = _Write(output_path, layout, replace, check)

    def expand(self, embeddings: beam.PCollection) -> WriteResult:
        outputs = embeddings | "Records" >> beam.ParDo(self._write).with_output_types(
            Embedded, failed=Failed
        ).with_outputs("failed", main="embedded")
        return WriteResult(outputs.embedded, outputs.failed)


class _Write(ThreadedDoFn):
    """Embedding -> Embedded or Failed."""

    def __init__(
        self, output_path: str, layout: str, replace: bool, check: Callable[[], None] | None
    ) -> None:
        self._output_path, self._layout, self._replace = output_path, layout, replace
        self._check = check
        self._places = storage.settings()

    def threads(self) -> Threads:
        # An upload waits for the network; a local file is written at once, so that a full disk is
        # noticed before the next model call.
        count = _UPLOADS if storage.is_remote(self._output_path) else 0
        return Threads("write", count, count)

    def setup(self) -> None:
        super().setup()
        storage.configure(self._places)
        self._start = storage.start_of(self._output_path)
        if self._check is not None:
            self._check()

    def work(self, element: Embedding) -> Result:
        since = time.perf_counter()
        folder = element.folder if self._layout == "mirror" else ""
        record = record_path(element.dicom_id, folder)
        named = (element.output,) if element.output else ()
        target = self._start + (f"{element.output}/{record}" if named else record)
        data = encode_record(Record(element.image_id, element.values))
        try:
            storage.write_whole(target, data, replace=self._replace)
        except OSError as error:
            if fault := machine_fault(error, Stage.WRITE, target):
                raise fault from error
            detail = one_line(error.strerror or error)
            failed = Failed(element.dicom_id, element.image_id, "write_error", detail, named)
            return Result("failed", failed, {"failed/write_error": 1})
        source = element.source
        embedded = Embedded(
            element.dicom_id, element.image_id, record, element.rows, element.columns,
            element.warnings,
            source.bytes if source else 0,
            source.crc32c if source else "",
            len(element.values),
            file_state(target),
            named,
        )  # fmt: skip
        counts = {"embedded": 1, "write_microseconds": round(1e6 * (time.perf_counter() - since))}
        if named:
            counts[f"embedded/{element.output}"] = 1
        return Result(None, embedded, counts)
