"""Plans a run: compares the requested images with the valid records in the output.

A run of a model with several outputs has a plan for each of them. Each is that of a job with this
output alone, so that the folder of an output is like any other output.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cxr_embed import models, storage
from cxr_embed.elements import ImageRef
from cxr_embed.errors import Unreachable, UsageError
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS
from cxr_embed.runs import resume
from cxr_embed.runs.archives import located
from cxr_embed.runs.fingerprint import (
    Fingerprint,
    OutputConfig,
    differences,
    make_fingerprint,
    merged,
    read_output_config,
)
from cxr_embed.runs.folder import new_run_id, run_folder
from cxr_embed.storage.archives import reading_order
from cxr_embed.storage.search_archives import ListedArchive

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A job as the user requested it; the fields are the flags of the main job.

    `refs` are the images found, and `model` holds the model settings. `runner` is a Beam runner's
    name, and `beam_arguments` are Beam's flags. If `batch_size` or `decode_threads` is 0, its value
    is chosen after the model is known. `archives` are the archives that were listed.
    """

    refs: list[ImageRef]
    output_path: str
    model: models.ModelSettings
    file_type: str = "auto"
    layout: str = "flat"
    rendering: str = "cxr_foundation"
    views: str = "all"
    batch_size: int = 0
    overwrite: bool = False
    moved_inputs: bool = False
    max_failures: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    runner: str = ""
    beam_arguments: tuple[str, ...] = ()
    decode_threads: int = 0
    decode_scale: str = "full"
    archives: Mapping[str, ListedArchive] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether Beam's in-process runner runs the job in this process."""
        return not self.runner


@dataclass
class Plan:
    """A job compared with its output; nothing has been written yet.

    Attributes:
        job: the job.
        todo: the images without a valid record.
        replace: records to remove first (--overwrite with other settings).
        temporary: temporary files in the output, of killed or running runs.
        fingerprint: the fingerprint of this run.
        config_fingerprint: the fingerprint to write to `_embedding_config.json`.
        embedding_size: floats in an embedding; None until a model has been loaded.
        checked: existing records that had to be read, noted for the next run.
        run_id: the run's name.
        output: name of the output, if the run has several.
    """

    job: Job
    todo: list[ImageRef]
    replace: list[str]
    temporary: list[str]
    fingerprint: Fingerprint
    config_fingerprint: Fingerprint
    embedding_size: int | None = None
    checked: dict[str, resume.KnownRecord] = field(default_factory=dict)
    run_id: str = field(default_factory=new_run_id)
    output: str = ""

    @property
    def folder(self) -> str:
        """The run's folder."""
        return run_folder(self.job.output_path, self.run_id)


@dataclass
class RunPlan:
    """The plans of all outputs of a run, usually of one.

    Attributes:
        job: the job as the user requested it. With several outputs, they are in folders of its
            output path.
        outputs: the plan of each output.
    """

    job: Job
    outputs: list[Plan]

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.outputs[0].run_id

    @property
    def names(self) -> tuple[str, ...]:
        """The names of several outputs; empty for a single one."""
        return tuple(plan.output for plan in self.outputs if plan.output)

    @property
    def records(self) -> int:
        """The number of records to write."""
        return sum(len(plan.todo) for plan in self.outputs)

    @functools.cached_property
    def todo(self) -> list[ImageRef]:
        """The images without a valid record in some output. Each is computed once."""
        if not self.names:
            return self.outputs[0].todo
        missing: dict[ImageRef, list[str]] = {}
        for plan in self.outputs:
            for ref in plan.todo:
                missing.setdefault(ref, []).append(plan.output)
        wanted = ((ref, tuple(missing[ref])) for ref in self.job.refs if ref in missing)
        # No names stand for all outputs, which is the usual case and keeps references small.
        return [
            ref if names == self.names else replace(ref, outputs=names) for ref, names in wanted
        ]


def plan_run(job: Job, log: Log) -> RunPlan:
    """Compares a job with its output, or with each of its outputs; writes nothing.

    Raises:
        UsageError: as `make_plan`; or the folder of the several outputs is itself an output.
    """
    parts = models.outputs.parts(job.model.config)
    if not parts:
        return RunPlan(job, [make_plan(job, log)])
    if _output_config(job) is not None:
        raise UsageError(
            f"--output_path {job.output_path} holds the records of one output, and this model "
            f"config has several ({', '.join(parts)}), which get folders in it: pass another one"
        )
    run_id, plans = new_run_id(), []
    for name, config in parts.items():
        model = replace(job.model, config=config)
        part = replace(job, output_path=storage.join(job.output_path, name), model=model)
        plan = make_plan(part, functools.partial(_log_of_output, log, name))
        plan.run_id, plan.output = run_id, name
        plans.append(plan)
    return RunPlan(job, plans)


def _log_of_output(log: Log, name: str, line: str) -> None:
    mark = "warning: " if line.startswith("warning: ") else ""
    log(f"{mark}{name}: {line.removeprefix(mark)}")


def make_plan(job: Job, log: Log) -> Plan:
    """Compares a job with its output; writes nothing.

    Raises:
        UsageError: the model is missing, the output cannot be listed or written to, or its records
            do not match the job.
    """
    problem = storage.why_not_writable(job.output_path)
    if problem:
        raise Unreachable(f"--output_path {job.output_path} cannot be written to: {problem}")
    _require_paths_for_workers(job)
    models.check_is_there(job.model)
    fingerprint = make_fingerprint(
        model_sha256=models.content_id(job.model),
        model_config=job.model.config.as_dict(),
        rendering=job.rendering,
        precision=models.precision_of(job.model),
        engine=job.model.engine,
        model_revision=job.model.hub_commit,
        decode_scale=job.decode_scale,
    )
    try:
        found = resume.survey(job.output_path)
    except OSError as error:
        raise Unreachable(f"--output_path cannot be listed: {error}") from error
    old = _output_config(job)
    if not job.overwrite:
        resume.require_same_settings(job.output_path, old, fingerprint, found)
    size = None if old is None or job.overwrite else old.embedding_size
    done = resume.find_done(job.output_path, job.refs, found, size)
    if not job.moved_inputs:
        resume.require_own_records(job.output_path, done)
    is_same = old is not None and not differences(old.fingerprint, fingerprint)
    config = merged(old.fingerprint, fingerprint) if old and is_same else fingerprint
    ordered = sorted(job.refs, key=lambda ref: reading_order(ref.path, ref.location))
    if job.overwrite:
        replace = resume.records_to_replace(job.output_path, old, fingerprint, found, job.refs)
        return Plan(job, ordered, replace, found.temporary, fingerprint, config)
    _log_done(done, log)
    todo = [ref for ref in ordered if ref.is_refused or ref.record not in done.records]
    todo = located(todo)
    return Plan(job, todo, [], found.temporary, fingerprint, config, size, done.checked)


def _output_config(job: Job) -> OutputConfig | None:
    try:
        return read_output_config(job.output_path)
    except UsageError:
        if job.overwrite:
            return None
        raise


def _require_paths_for_workers(job: Job) -> None:
    """Raises UsageError if a Dataflow job has local paths, which its workers cannot open."""
    if job.runner != "DataflowRunner":
        return
    if not storage.is_remote(job.output_path):
        raise UsageError(
            f"--output_path {job.output_path} is a local path, which Dataflow's workers cannot "
            "write: pass gs://bucket/prefix"
        )
    local = next((ref.path for ref in job.refs if not storage.is_remote(ref.path)), None)
    if local is not None:
        raise UsageError(
            f"{local} is a local path, which Dataflow's workers cannot read: copy the images to a "
            "bucket (gcloud storage cp -r) and pass gs:// paths"
        )


def _log_done(done: resume.Done, log: Log) -> None:
    if done.records:
        log(f"{count_of_images(len(done.records))} already there, not computed again")
    if done.damaged:
        log(f"{len(done.damaged)} damaged records will be computed again")
    if done.others:
        log(
            f"warning: {len(done.others)} records keep an image/id that is not the path given now, "
            f"such as {done.others[0][0]}"
        )


def count_of_images(count: int) -> str:
    """Returns `1 image`, `2 images`."""
    return f"{count} image" if count == 1 else f"{count} images"
