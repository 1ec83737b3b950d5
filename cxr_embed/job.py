"""The main job: from what the user asked for to a plan, and from the plan to what came of it."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cxr_embed import (
    cloud_job,
    ledger,
    models,
    monitor,
    outputs,
    profiling,
    runs,
    sources,
    storage,
    threads,
)
from cxr_embed.errors import UsageError
from cxr_embed.fingerprint import (
    Fingerprint,
    OutputConfig,
    make_fingerprint,
    read_output_config,
    write_output_config,
)
from cxr_embed.models import inputs
from cxr_embed.models.outline import Outline, outline
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from cxr_embed import transforms

Say = Callable[[str], None]

# Beam's own default tries to download another runner; everybody gets the in-process one.
LOCAL_RUNNER = "FnApiRunner"


@dataclass(frozen=True)
class Job:
    """What the user asked for; the fields are the flags of the main job.

    `model` is resolved already: a local folder. `runner` is a Beam runner's name, and
    `beam_arguments` are the user's Beam flags. A `batch_size` or `decode_threads` of 0 is for
    `execute` to choose.
    """

    output_path: str
    model: models.ModelSettings
    input_path: str | None = None
    input_list: str | None = None
    file_type: str = "auto"
    layout: str = "flat"
    rendering: str = "cxr_foundation"
    views: str = "all"
    batch_size: int = 0
    limit: int = 0
    overwrite: bool = False
    max_failures: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    runner: str = LOCAL_RUNNER
    beam_arguments: tuple[str, ...] = ()
    decode_threads: int = 0
    profile: bool = False

    @property
    def is_local(self) -> bool:
        """Whether Beam's in-process runner runs it, here."""
        return self.runner == LOCAL_RUNNER


@dataclass
class Plan:
    """A job whose inputs and output were looked at; nothing has been written yet.

    Attributes:
        job: what was asked for.
        refs: all images.
        todo: those without a valid record.
        replace: records to remove first (--overwrite with other settings).
        leftovers: files that a killed run left in the output.
        fingerprint: how the records will be made.
        embedding_size: floats in an embedding; None until a model was loaded.
        checked: lines for the ledger: records that stand and had to be read through.
        run_id: the run's name.
    """

    job: Job
    refs: list[sources.ImageRef]
    todo: list[sources.ImageRef]
    replace: list[str]
    leftovers: list[str]
    fingerprint: Fingerprint
    embedding_size: int | None
    checked: list[ledger.Line] = field(default_factory=list)
    run_id: str = field(default_factory=runs.new_run_id)


@dataclass
class Conditions:
    """What a run chose or met, for the manifest: all that the flags leave open."""

    started: datetime.datetime
    batch_size: int
    device: str
    threads: threads.Threads
    load_seconds: float = 0.0
    first_image_seconds: float = 0.0


@dataclass
class Result:
    """What came of a run.

    Attributes:
        counts: images `found`, `embedded`, `already_there`, `not_attempted`.
        skipped: images by reason.
        failed: images by reason.
        seconds: wall time of the images' walk, model loading left out.
        folder: where the tables and the manifest are.
        stopped_early: more images failed than --max_failures allows, or somebody interrupted.
        handed_over: where the images went that nobody here waited for: a template, or a job.
    """

    counts: dict[str, int]
    skipped: dict[str, int]
    failed: dict[str, int]
    seconds: float
    folder: str
    stopped_early: bool = False
    handed_over: str = ""

    @property
    def images_per_second(self) -> float:
        """Images that walked, whatever their end, a second."""
        walked = self.counts["embedded"] + sum(self.failed.values()) + sum(self.skipped.values())
        return walked / self.seconds if self.seconds else 0.0


def plan(job: Job, say: Say) -> Plan:
    """Looks at inputs, output and model folder; writes nothing.

    Raises:
        UsageError: something is missing, cannot be written to, or does not fit together.
    """
    refs = sources.find_images(
        job.input_path, job.input_list, layout=job.layout, limit=job.limit,
        output_path=job.output_path,
    )  # fmt: skip
    say(f"found {_images(len(refs))} in {job.input_list or job.input_path}")
    cloud_job.check_paths(job.runner, job.output_path, (ref.path for ref in refs))
    problem = storage.why_not_writable(job.output_path)
    if problem:
        raise UsageError(f"--output_path {job.output_path} cannot be written to: {problem}")
    models.check_is_there(job.model)
    fingerprint = make_fingerprint(
        model_sha256=models.content_id(job.model),
        model_config=job.model.config.as_dict(),
        rendering=job.rendering,
        precision=job.model.precision,
        engine=job.model.engine,
    )
    found = outputs.survey(job.output_path)
    if job.overwrite:
        old = _read_unless_damaged(job.output_path)
        replace = outputs.records_to_replace(job.output_path, old, fingerprint, found, refs)
        return Plan(job, refs, refs, replace, found.leftovers, fingerprint, None)
    old = read_output_config(job.output_path)
    outputs.require_same_settings(job.output_path, old, fingerprint, found)
    size = old.embedding_size if old else None
    standing = outputs.find_standing(job.output_path, refs, found, size or 0)
    _tell_about_standing(standing, say)
    todo = [ref for ref in refs if ref.record not in standing.done]
    return Plan(job, refs, todo, [], found.leftovers, fingerprint, size, standing.checked)


def _read_unless_damaged(output_path: str) -> OutputConfig | None:
    try:
        return read_output_config(output_path)
    except UsageError:
        return None


def _tell_about_standing(standing: outputs.Standing, say: Say) -> None:
    if standing.done:
        say(f"{_images(len(standing.done))} already there, not computed again")
    if standing.torn:
        say(f"{len(standing.torn)} damaged records will be computed again")
    if standing.other_ids:
        say(
            f"warning: {len(standing.other_ids)} records already there carry another image/id than "
            f"the path given now, such as {standing.other_ids[0]}"
        )


def execute(plan_: Plan, say: Say, watch: Callable[[monitor.RunMonitor, int], Any]) -> Result:
    """Carries out a plan.

    Args:
        plan_: what to do.
        say: tells a person one line.
        watch: gets the run's monitor and the number of images; returns a context manager that
            shows progress while the images walk.

    Returns:
        What came of it; the records, tables and manifest are written.

    Raises:
        UsageError: the model cannot be used. Nothing has been written then.
    """
    job = plan_.job
    started = datetime.datetime.now(datetime.UTC)
    folder = runs.run_folder(job.output_path, plan_.run_id)
    nothing = threads.Threads(job.decode_threads, 0)
    conditions = Conditions(started, job.batch_size, job.model.device, nothing)
    walk_seconds = 0.0
    counters: dict[str, int] = {}
    handed_over = ""
    watched = monitor.monitor_of(plan_.run_id, job.max_failures)
    outputs.remove_leftovers(job.output_path, plan_.leftovers)
    if plan_.checked:
        runs.write_lines(folder, ledger.STANDING, [ledger.encode(plan_.checked)])
    if plan_.todo:
        clock = time.perf_counter()
        model = models.shared(job.model) if job.is_local else outline(job.model)
        conditions.load_seconds = time.perf_counter() - clock
        conditions.batch_size, conditions.device = _check_model(plan_, model), model.device
        conditions.threads = _choose_threads(job, conditions)
        say(_describe(job, model, conditions))
        from cxr_embed import transforms  # noqa: F401  Beam takes seconds to import

        _prepare_output(plan_, model.embedding_size)
        sampling = profiling.Sampler() if job.profile else contextlib.nullcontext()
        with watch(watched, len(plan_.todo)), sampling as sampler:
            clock = time.perf_counter()
            ended = _run_graph(plan_, conditions, say)
            walk_seconds = time.perf_counter() - clock
        if isinstance(ended, dict):
            counters = ended
        else:
            handed_over = ended.to
        conditions.first_image_seconds = (watched.first or clock) - clock
        if sampler is not None:
            runs.write_profile(folder, sampler, _stages(counters))
    else:
        for table in runs.TABLES:
            runs.write_lines(folder, f"{table}.csv", [])
    result = _result(plan_, counters, walk_seconds, folder, watched.is_stopping)
    if handed_over:
        result.handed_over, result.counts["not_attempted"] = handed_over, 0
    runs.write_manifest(folder, _manifest(plan_, result, counters, conditions))
    return result


def _check_model(plan_: Plan, model: models.EmbeddingModel | Outline) -> int:
    """Checks the loaded model against output and flags; returns the batch size."""
    job = plan_.job
    if plan_.embedding_size not in (None, model.embedding_size):
        raise UsageError(
            f"the model gives embeddings of {model.embedding_size} floats, the records in "
            f"{job.output_path} have {plan_.embedding_size}"
        )
    wanted = job.batch_size or model.best_batch_size
    if model.max_batch_size is not None and wanted > model.max_batch_size:
        raise UsageError(
            f"--batch_size={wanted}: this model takes at most {model.max_batch_size} at a time"
        )
    return wanted


def _choose_threads(job: Job, conditions: Conditions) -> threads.Threads:
    return threads.choose(
        job.decode_threads,
        batch_size=conditions.batch_size,
        device=conditions.device,
        is_remote=any(
            storage.is_remote(path or "")
            for path in (job.input_path, job.input_list, job.output_path)
        ),
    )


def _describe(job: Job, model: models.EmbeddingModel | Outline, conditions: Conditions) -> str:
    engine = "" if job.model.endpoint else f" with {job.model.engine} in {job.model.precision}"
    return (
        f"model {job.model.path}: {inputs.describe(model.input)} in, "
        f"{model.embedding_size} floats out, on {model.device}{engine}, "
        f"batch size {conditions.batch_size}, {conditions.threads.decode} decoding threads "
        f"(loaded in {conditions.load_seconds:.1f} s)"
    )


def _prepare_output(plan_: Plan, embedding_size: int) -> None:
    """Readies the output: old records first, then the fingerprint, so that a kill mixes nothing."""
    output_path = plan_.job.output_path
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: storage.remove(storage.join(output_path, r)), plan_.replace))
    try:
        write_output_config(output_path, OutputConfig(plan_.fingerprint, embedding_size))
    except OSError as error:
        raise UsageError(
            f"--output_path {output_path} cannot be written to: {error.strerror or error}"
        ) from error


def _run_graph(
    plan_: Plan, conditions: Conditions, say: Say
) -> dict[str, int] | transforms.HandedOver:
    from cxr_embed import transforms

    job = plan_.job
    # Workers on other machines choose for themselves: they have other cores and other devices.
    batch_size = conditions.batch_size if job.is_local else job.batch_size
    decode_threads = conditions.threads.decode if job.is_local else job.decode_threads
    settings = transforms.EmbedSettings(
        run_id=plan_.run_id,
        output_path=job.output_path,
        model=job.model,
        batch_size=batch_size,
        decode_threads=decode_threads,
        file_type=job.file_type,
        rendering=job.rendering,
        views=job.views,
        max_pixels=job.max_pixels,
        max_failures=job.max_failures,
    )
    walks = conditions.threads.walks
    return transforms.run(
        plan_.todo, settings, job.runner, list(job.beam_arguments), walks=walks, say=say
    )


def _result(
    plan_: Plan, counters: dict[str, int], seconds: float, folder: str, stopping: bool
) -> Result:
    skipped, failed = _by_reason(counters, "skipped/"), _by_reason(counters, "failed/")
    embedded = counters.get("embedded", 0)
    ended = embedded + sum(skipped.values()) + sum(failed.values())
    counts = {
        "found": len(plan_.refs),
        "embedded": embedded,
        "already_there": len(plan_.refs) - len(plan_.todo),
        "not_attempted": len(plan_.todo) - ended,
    }
    return Result(counts, skipped, failed, seconds, folder, stopping)


def _by_reason(counters: dict[str, int], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): number
        for name, number in sorted(counters.items())
        if name.startswith(prefix) and number
    }


def _manifest(
    plan_: Plan, result: Result, counters: dict[str, int], conditions: Conditions
) -> dict[str, Any]:
    job = plan_.job
    return {
        "run_id": plan_.run_id,
        "command": sys.argv,
        "started": conditions.started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": plan_.fingerprint,
        "model_path": job.model.path,
        "device": conditions.device,
        "engine": job.model.engine,
        "batch_size": conditions.batch_size,
        "decode_threads": conditions.threads.decode,
        "chunks_at_a_time": conditions.threads.walks,
        "runner": job.runner,
        "versions": runs.versions(),
        "machine": runs.machine(),
        "counts": {**result.counts, "skipped": result.skipped, "failed": result.failed},
        "stopped_early": result.stopped_early,
        "handed_over": result.handed_over,
        "bytes_read": counters.get("bytes_read", 0),
        "model_calls_by_batch_size": _by_reason(counters, "batches_of/"),
        # Seconds summed over threads, except the first two, which a clock on the wall shows.
        "seconds": {
            "wall": round(result.seconds, 3),
            "until_first_image": round(conditions.first_image_seconds, 3),
            **_stages(counters),
            # Workers elsewhere load it for themselves.
            "model_load": round(
                conditions.load_seconds + counters.get("model_load_microseconds", 0) / 1e6, 3
            ),
        },
        "images_per_second": round(result.images_per_second, 3),
    }


def _stages(counters: dict[str, int]) -> dict[str, float]:
    """Returns seconds by stage, summed over threads."""
    suffix = "_microseconds"
    return {
        name.removesuffix(suffix): round(value / 1e6, 3)
        for name, value in sorted(counters.items())
        if name.endswith(suffix)
    }


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
