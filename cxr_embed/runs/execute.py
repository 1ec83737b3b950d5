"""Executes a plan: runs the Beam graph, then writes the run's tables and manifest."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_embed import models, storage
from cxr_embed.errors import MachineFault, UsageError, one_line
from cxr_embed.faults import machine_fault
from cxr_embed.models import inputs
from cxr_embed.models.outline import Outline, outline
from cxr_embed.outcomes import Stage
from cxr_embed.runs import resume, tables
from cxr_embed.runs.fingerprint import OutputConfig, require_same_software, write_output_config
from cxr_embed.runs.folder import write_manifest
from cxr_embed.runs.manifest import Conditions, make_manifest
from cxr_embed.runs.plan import Log, Plan
from cxr_embed.runs.progress import Progress, progress_of
from cxr_embed.runs.sink import RunTables, files_of

if TYPE_CHECKING:
    from cxr_embed.pipeline.graph import GraphSettings
    from cxr_embed.pipeline.launch import Metrics

# Upper estimates of the size of a manifest and of a table row without its path.
_MANIFEST_BYTES, _ROW_BYTES = 64 << 10, 400

# Displays progress while images are embedded. Receives the counts and the number of images.
Watch = Callable[[Progress, int], AbstractContextManager[None]]


@dataclass
class Result:
    """The result of a run.

    Attributes:
        folder: folder of the tables and the manifest.
        counts: images `found`, `embedded`, `already_there`, `not_attempted`.
        skipped: images by reason.
        failed: images by reason.
        seconds: wall time of the graph without model loading.
        ended: why the run ended: `done`, `handed_over`, `interrupted`, `max_failures`,
            `machine_fault` or `error`.
        error: the exception that ended the run, if any.
        handed_over: the template or the job that received the images, if this process does not
            wait for them.
    """

    folder: str
    counts: dict[str, int]
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    ended: str = "done"
    error: BaseException | None = None
    handed_over: str = ""

    @property
    def images_per_second(self) -> float:
        """Images with an outcome of any kind per second."""
        ended = self.counts["embedded"] + sum(self.failed.values()) + sum(self.skipped.values())
        return ended / self.seconds if self.seconds else 0.0


def execute(plan: Plan, log: Log, watch: Watch) -> Result:
    """Executes a plan.

    Args:
        plan: the plan.
        log: logs one line for the user.
        watch: displays progress.

    Returns:
        The result, also of a run that ended with an error. Tables and manifest are written.

    Raises:
        UsageError: the model cannot be used. Nothing has been written in this case.
        MachineFault: tables or manifest cannot be written.
    """
    job = plan.job
    conditions = Conditions(
        datetime.datetime.now(datetime.UTC), job.batch_size, job.model.device, job.decode_threads
    )
    resume.remove_abandoned(job.output_path, plan.temporary)
    result = Result(plan.folder, _counts(plan, tables.Counts()))
    metrics: Metrics | None = None
    reserve = contextlib.ExitStack()
    if plan.todo:
        # This reference keeps the model loaded for the graph's workers in this process.
        model = _load_model(plan, conditions, log)
        reserve.enter_context(_reserved_space(plan))
        _prepare_output(plan)
        metrics = _run(plan, conditions, result, log, watch)
        del model
    reserve.close()
    try:
        _graph_tables(plan).flush()  # a failed bundle has not stored its last rows
        if plan.checked:
            resume.write_checked(plan.folder, plan.checked)
        if result.handed_over:
            result.counts["not_attempted"] = 0  # unknown here
        else:
            merged = tables.merge(files_of(plan.folder))
            if not merged.total and metrics is not None and not job.is_local:
                # The shards are not visible here, but the service reports its counters.
                merged = tables.Counts.from_counters(metrics.counters)
            result.counts = _counts(plan, merged)
            result.skipped, result.failed = merged.skipped, merged.failed
            if 0 < job.max_failures < sum(merged.failed.values()) and result.error is not None:
                result.ended = "max_failures"  # workers elsewhere stopped the run
        write_manifest(plan.folder, make_manifest(plan, result, metrics, conditions))
    except (OSError, MachineFault) as error:
        if result.error is not None:  # the same fault ended the run, with more detail
            return result
        raise MachineFault(f"{plan.folder} cannot be written: {one_line(error)}") from error
    return result


def _counts(plan: Plan, found: tables.Counts) -> dict[str, int]:
    return {
        "found": len(plan.job.refs),
        "embedded": found.embedded,
        "already_there": len(plan.job.refs) - len(plan.todo),
        "not_attempted": len(plan.todo) - found.total,
    }


def _load_model(plan: Plan, conditions: Conditions, log: Log) -> object:
    """Loads the model, or reads only its signature if remote workers load it."""
    from cxr_embed.models.sharing import shared
    from cxr_embed.pipeline.threads import reading_threads  # Beam takes seconds to import

    job = plan.job
    settings = worker_settings(plan)
    since = time.perf_counter()
    holder = shared(settings) if job.is_local else None
    model = outline(settings) if holder is None else holder.model
    conditions.load_seconds = time.perf_counter() - since
    conditions.batch_size, conditions.device = _check_model(plan, model), model.device
    paths = (job.output_path, job.refs[0].path)
    conditions.decode_threads = reading_threads(
        job.decode_threads,
        device=conditions.device,
        is_remote=any(storage.is_remote(path) for path in paths),
    )
    log(_describe(plan, model, conditions))
    plan.embedding_size = model.embedding_size
    return holder or model


def worker_settings(plan: Plan) -> models.ModelSettings:
    """Returns the model settings for workers, which reject a model with other content."""
    return plan.job.model.with_content(plan.fingerprint["model_sha256"])


def _check_model(plan: Plan, model: models.EmbeddingModel | Outline) -> int:
    """Checks the loaded model against the output and the flags; returns the batch size."""
    job = plan.job
    if plan.embedding_size not in (None, model.embedding_size):
        raise UsageError(
            f"the model gives embeddings of {model.embedding_size} floats, the records in "
            f"{job.output_path} have {plan.embedding_size}"
        )
    wanted = job.batch_size or model.best_batch_size
    if model.max_batch_size is not None and wanted > model.max_batch_size:
        raise UsageError(
            f"--batch_size={wanted}: this model takes at most {model.max_batch_size} at a time"
        )
    return wanted


def _describe(plan: Plan, model: models.EmbeddingModel | Outline, conditions: Conditions) -> str:
    settings = plan.job.model
    precision = models.precision_of(settings)
    engine = "" if settings.endpoint else f" with {settings.engine} in {precision}"
    loaded = (
        f"loaded in {conditions.load_seconds:.1f} s" if plan.job.is_local else "loaded by workers"
    )
    return (
        f"model {settings.path}: {inputs.describe(model.input)} in, "
        f"{model.embedding_size} floats out, on {model.device}{engine}, "
        f"batch size {conditions.batch_size}, {conditions.decode_threads} decoding threads "
        f"({loaded})"
    )


def _prepare_output(plan: Plan) -> None:
    """Removes old records, then writes the fingerprint.

    In this order, a run that is killed never leaves old records beside a new fingerprint.
    """
    output_path = plan.job.output_path
    assert plan.embedding_size is not None
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda r: storage.remove(storage.join(output_path, r)), plan.replace))
        write_output_config(output_path, OutputConfig(plan.config_fingerprint, plan.embedding_size))
    except OSError as error:
        raise UsageError(
            f"--output_path {output_path} cannot be written to: {error.strerror or error}"
        ) from error


def _reserved_space(plan: Plan) -> contextlib.AbstractContextManager[Any]:
    """Reserves disk space for tables and manifest, in case records fill the output's disk.

    The reserved file has no name, so the operating system removes it when the process ends.
    """
    if storage.is_remote(plan.folder) or not hasattr(os, "posix_fallocate"):
        return contextlib.nullcontext()
    size = _MANIFEST_BYTES + sum(2 * len(ref.path) + _ROW_BYTES for ref in plan.todo)
    try:
        Path(plan.folder).mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=plan.folder)  # noqa: SIM115  closed by the caller
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            with contextlib.suppress(OSError):  # nothing was written
                Path(plan.folder).rmdir()
                Path(plan.folder).parent.rmdir()
            fault = machine_fault(error, Stage.WRITE, f"--output_path {plan.job.output_path}")
            raise (fault or error) from error
        raise UsageError(
            f"--output_path {plan.job.output_path} cannot be written to: {error.strerror or error}"
        ) from error
    return file


def _run(
    plan: Plan, conditions: Conditions, result: Result, log: Log, watch: Watch
) -> Metrics | None:
    """Runs the graph and records in `result` how it ended."""
    from cxr_embed.pipeline import launch  # Beam takes seconds to import

    job = plan.job
    progress = progress_of(plan.run_id, job.max_failures)
    metrics = None
    with watch(progress, len(plan.todo)):
        since = time.perf_counter()
        try:
            ended = launch.run(
                plan.todo, _graph_settings(plan, conditions), plan.folder,
                job.runner or launch.LOCAL_RUNNER, job.beam_arguments,
                log=log, on_counters=partial(_follow, progress),
            )  # fmt: skip
            metrics, result.handed_over = ended.metrics, ended.handed_over
            result.ended = "handed_over" if ended.handed_over else "done"
        except KeyboardInterrupt as error:  # a remote job continues
            result.ended, result.error = "interrupted", error
        except Exception as error:
            result.error = error
            result.ended = "machine_fault" if isinstance(error, MachineFault) else "error"
        result.seconds = time.perf_counter() - since
    if progress.is_interrupted:
        result.ended = "interrupted"
    elif progress.has_too_many_failures:
        result.ended = "max_failures"
    conditions.first_image_seconds = (progress.first or since) - since
    return metrics


def _graph_tables(plan: Plan) -> RunTables:
    return RunTables(plan.job.output_path, plan.run_id, plan.job.max_failures)


def _graph_settings(plan: Plan, conditions: Conditions) -> GraphSettings:
    from cxr_embed.pipeline.graph import GraphSettings

    job = plan.job
    return GraphSettings(
        model=worker_settings(plan),
        output_path=job.output_path,
        tables=_graph_tables(plan),
        # Remote workers have other cores and other devices than this machine.
        batch_size=conditions.batch_size if job.is_local else job.batch_size,
        read_threads=conditions.decode_threads if job.is_local else job.decode_threads,
        file_type=job.file_type,
        rendering=job.rendering,
        views=job.views,
        max_pixels=job.max_pixels,
        layout=job.layout,
        replace=job.overwrite,
        check_worker=partial(require_same_software, plan.fingerprint),
    )


def _follow(progress: Progress, counters: dict[str, int]) -> bool:
    """Copies a remote job's counters; returns whether the job may continue."""
    found = tables.Counts.from_counters(counters)
    progress.set_counts(
        {
            "embedded": found.embedded,
            "skipped": sum(found.skipped.values()),
            "failures": sum(found.failed.values()),
        }
    )
    return not progress.has_too_many_failures
