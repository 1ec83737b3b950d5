"""Executes a plan: runs the Beam graph, then writes the run's tables and manifest."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from cxr_embed import models, storage
from cxr_embed.errors import MachineFault, PlaceLost, UsageError, one_line
from cxr_embed.faults import is_unreachable
from cxr_embed.models import inputs
from cxr_embed.models.outline import Outline, outline
from cxr_embed.models.several import outputs_of
from cxr_embed.runs import resume, tables
from cxr_embed.runs.archives import write_archives
from cxr_embed.runs.fingerprint import require_same_software
from cxr_embed.runs.folder import files_of, write_manifest
from cxr_embed.runs.manifest import Conditions, make_manifest
from cxr_embed.runs.plan import Job, Log, Plan, RunPlan
from cxr_embed.runs.preparing import prepare_output, reserved_handles, reserved_space
from cxr_embed.runs.progress import Progress, progress_of
from cxr_embed.runs.result import Result
from cxr_embed.runs.run_tables import RunTables

if TYPE_CHECKING:
    from cxr_embed.pipeline.graph import GraphSettings
    from cxr_embed.pipeline.launch import Metrics

# Displays progress while images are embedded. Receives the counts and the number of images.
Watch = Callable[[Progress, int], AbstractContextManager[None]]


def execute_run(run: RunPlan, log: Log, watch: Watch) -> list[Result]:
    """Executes a plan.

    Args:
        run: the plan.
        log: logs one line for the user.
        watch: displays progress.

    Returns:
        The result for each output, also of a run that ended with an error. Tables and manifests
        are written.

    Raises:
        UsageError: the model cannot be used. Nothing has been written in this case.
        MachineFault: tables or manifest cannot be written.
    """
    job = run.job
    conditions = Conditions(
        datetime.datetime.now(datetime.UTC), job.batch_size, job.model.device, job.decode_threads
    )
    for plan in run.outputs:
        resume.remove_abandoned(plan.job.output_path, plan.temporary)
    results = [Result(plan.folder, _counts(plan, tables.Counts())) for plan in run.outputs]
    metrics: Metrics | None = None
    reserve = contextlib.ExitStack()
    if run.todo:
        # This reference keeps the model loaded for the graph's workers in this process.
        model = _load_model(run, conditions, log)
        reserve.enter_context(reserved_handles())
        started = [plan for plan in run.outputs if plan.todo]
        for plan in started:
            reserve.enter_context(reserved_space(plan))
        for plan in started:
            prepare_output(plan)
        metrics = _run(run, conditions, results, log, watch)
        del model
    reserve.close()
    try:
        _graph_tables(run).flush()  # a failed bundle has not stored its last rows
        for plan, result in zip(run.outputs, results, strict=True):
            _conclude(plan, result, metrics, conditions)
    except (OSError, MachineFault) as error:
        if results[0].error is not None:  # the same fault ended the run, with more detail
            return results
        is_lost = isinstance(error, PlaceLost) or is_unreachable(error)
        kind = PlaceLost if is_lost else MachineFault
        raise kind(f"{plan.folder} cannot be written: {one_line(error)}") from error
    return results


def _conclude(plan: Plan, result: Result, metrics: Metrics | None, conditions: Conditions) -> None:
    """Writes the final tables and the manifest of one output, and completes its result."""
    job = plan.job
    if plan.checked:
        resume.write_checked(plan.folder, plan.checked)
    if job.archives:
        write_archives(plan.folder, job.archives)
    if result.handed_over:
        result.counts["not_attempted"] = 0  # unknown here
    else:
        merged = tables.merge(files_of(plan.folder))
        if not merged.total and metrics is not None and not job.is_local:
            # The shards are not visible here, but the service reports its counters.
            merged = tables.Counts.from_counters(metrics.counters, plan.output)
        result.counts = _counts(plan, merged)
        result.skipped, result.failed = merged.skipped, merged.failed
        if 0 < job.max_failures < sum(merged.failed.values()) and result.error is not None:
            result.ended = "max_failures"  # workers elsewhere stopped the run
    write_manifest(plan.folder, make_manifest(plan, result, metrics, conditions))


def _counts(plan: Plan, found: tables.Counts) -> dict[str, int]:
    return {
        "found": len(plan.job.refs),
        "embedded": found.embedded,
        "already_there": len(plan.job.refs) - len(plan.todo),
        "not_attempted": len(plan.todo) - found.total,
    }


def _load_model(run: RunPlan, conditions: Conditions, log: Log) -> object:
    """Loads the model, or reads only its signature if remote workers load it."""
    from cxr_embed.models.sharing import shared
    from cxr_embed.pipeline.threads import reading_threads  # Beam takes seconds to import

    job = run.job
    settings = worker_settings(run)
    since = time.perf_counter()
    holder = shared(settings) if job.is_local else None
    model = outline(settings) if holder is None else holder.model
    conditions.load_seconds = time.perf_counter() - since
    conditions.batch_size, conditions.device = _batch_size(job, model), model.device
    conditions.cover = cover_of(job, model)
    paths = (job.output_path, job.refs[0].path)
    conditions.decode_threads = reading_threads(
        job.decode_threads,
        device=conditions.device,
        is_remote=any(storage.is_remote(path) for path in paths),
    )
    outputs = outputs_of(model)
    for plan in run.outputs:
        part = outputs.get(plan.output)
        size = model.embedding_size if part is None else part.stop - part.start
        if plan.embedding_size not in (None, size):
            raise UsageError(
                f"the model gives embeddings of {size} floats, the records in "
                f"{plan.job.output_path} have {plan.embedding_size}"
            )
        plan.embedding_size = size
    log(_describe(run, model, conditions))
    return holder or model


def worker_settings(run: RunPlan) -> models.ModelSettings:
    """Returns the model settings for workers, which reject a model with other content."""
    model = run.job.model
    # With several outputs, each fingerprint holds the hash of the stages that it needs.
    content = run.outputs[0].fingerprint["model_sha256"]
    return model.with_content(models.content_id(model) if run.names else content)


def _batch_size(job: Job, model: models.EmbeddingModel | Outline) -> int:
    """Returns the batch size that the flags or the model choose."""
    wanted = job.batch_size or model.best_batch_size
    if model.max_batch_size is not None and wanted > model.max_batch_size:
        raise UsageError(
            f"--batch_size={wanted}: this model takes at most {model.max_batch_size} at a time"
        )
    return wanted


def cover_of(job: Job, model: models.EmbeddingModel | Outline) -> tuple[int, int] | None:
    """Returns the size that images are decoded at, at least; None is the whole of them."""
    if job.decode_scale == "full":
        return None
    size = inputs.least_size(model.input)
    if size is None:
        raise UsageError(
            "--decode_scale=auto needs a model whose images are resized here, by averaging, to a "
            f"known size; this one takes {inputs.describe(model.input)}: leave the flag out"
        )
    return size


def _describe(run: RunPlan, model: models.EmbeddingModel | Outline, conditions: Conditions) -> str:
    settings = run.job.model
    precision = models.precision_of(settings)
    engine = "" if settings.endpoint else f" with {settings.engine} in {precision}"
    loaded = (
        f"loaded in {conditions.load_seconds:.1f} s" if run.job.is_local else "loaded by workers"
    )
    floats = " and ".join(
        f"{plan.embedding_size} floats" + (f" ({plan.output})" if plan.output else "")
        for plan in run.outputs
    )
    return (
        f"model {settings.path}: {inputs.describe(model.input)} in, "
        f"{floats} out, on {model.device}{engine}, "
        f"batch size {conditions.batch_size}, {conditions.decode_threads} decoding threads "
        f"({loaded})"
    )


def _run(
    run: RunPlan, conditions: Conditions, results: list[Result], log: Log, watch: Watch
) -> Metrics | None:
    """Runs the graph and records in the results how it ended."""
    from cxr_embed.pipeline import launch  # Beam takes seconds to import

    job, result = run.job, results[0]
    progress = progress_of(run.run_id, job.max_failures)
    metrics = None
    with watch(progress, run.records):
        since = time.perf_counter()
        try:
            ended = launch.run(
                run.todo, _graph_settings(run, conditions), run.outputs[0].folder,
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
    for other in results[1:]:
        other.seconds, other.ended, other.error = result.seconds, result.ended, result.error
        other.handed_over = result.handed_over
    return metrics


def _graph_tables(run: RunPlan) -> RunTables:
    return RunTables(run.job.output_path, run.run_id, run.job.max_failures, outputs=run.names)


def _graph_settings(run: RunPlan, conditions: Conditions) -> GraphSettings:
    from cxr_embed.pipeline.graph import GraphSettings

    job = run.job
    return GraphSettings(
        model=worker_settings(run),
        output_path=job.output_path,
        tables=_graph_tables(run),
        # Remote workers have other cores and other devices than this machine.
        batch_size=conditions.batch_size if job.is_local else job.batch_size,
        waiting=conditions.batch_size,
        read_threads=conditions.decode_threads if job.is_local else job.decode_threads,
        file_type=job.file_type,
        rendering=job.rendering,
        views=job.views,
        max_pixels=job.max_pixels,
        cover=conditions.cover,
        layout=job.layout,
        replace=job.overwrite,
        check_worker=partial(require_same_software, run.outputs[0].fingerprint),
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
