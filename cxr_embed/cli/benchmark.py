"""`cxr-embed benchmark`: how long a job will take on this machine, and what to change first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_embed import storage
from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import model_flags
from cxr_embed.cli import run as main_job
from cxr_embed.errors import UsageError
from cxr_embed.models import faster_engine

if TYPE_CHECKING:
    from cxr_embed.models.protocol import EmbeddingModel
    from cxr_embed.runs.plan import Job
    from cxr_embed.runs.trial import Trial

USAGE = """\
Reads, embeds and writes a sample of your images, each step separately and for some seconds, and
estimates how long all images will take on this machine. It leaves nothing in the output.

  cxr-embed benchmark --input_path DIR [--output_path DIR] [flags of the main job]

Exit status: 0 measured; 2 wrong flags or input; 3 stopped by an error."""

# Flags of the main job that mean nothing here.
_WITHOUT = ("watch", "overwrite", "moved_inputs", "skip_errors", "max_failures")


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = main_job.make_flags()
    for name in _WITHOUT:
        delattr(values, name)
    values.decimal(
        "seconds", 10, "seconds to measure reading, and seconds to measure each model", least=0.1
    )
    return values


def main(arguments: list[str]) -> int:
    """Measures; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    if bool(values.input_path) == bool(values.input_list):
        raise UsageError("pass one of --input_path and --input_list")
    from cxr_embed import models
    from cxr_embed.cli import terminal
    from cxr_embed.models.sharing import shared
    from cxr_embed.pipeline.threads import reading_threads
    from cxr_embed.runs.plan import Job, count_of_images
    from cxr_embed.runs.trial import run_trial

    log = terminal.Log(quiet=values.verbosity < 0)
    refs = main_job.find(values)
    log(f"found {count_of_images(len(refs))} in {values.input_list or values.input_path}")
    settings = model_flags.model_settings(values, log)
    models.check_is_there(settings)
    job = Job(
        refs, values.output_path or "", settings, file_type=values.input_file_type,
        rendering=values.rendering, views=values.views, batch_size=values.batch_size,
        max_pixels=values.max_pixels, decode_scale=values.decode_scale,
    )  # fmt: skip
    holder = shared(settings)
    threads = reading_threads(
        values.decode_threads,
        device=holder.model.device,
        is_remote=any(storage.is_remote(path) for path in (job.output_path, refs[0].path)),
    )
    others = faster_engine.other_engines(settings) if holder.model.device == "cpu" else []
    trial = run_trial(job, holder, threads, values.seconds, log, others=others)
    print("\n".join(_lines(job, holder.model, trial)))
    return 0


def _lines(job: Job, model: EmbeddingModel, trial: Trial) -> list[str]:
    settings, reading, running, writing = job.model, trial.reading, trial.model, trial.writing
    shares_cores = model.device == "cpu"
    each = trial.seconds_each(shares_cores)
    lines = [
        f"reading        {_rate(reading.seconds_each)} with {trial.threads} threads, "
        f"{trial.bytes_each / 1e6:.1f} MB each",
        f"model          {_rate(running.seconds_each)} on {model.device} with {settings.engine} in "
        f"{settings.precision}, batch size {job.batch_size or model.best_batch_size}",
    ]
    lines += [
        f"model          {_rate(rate.seconds_each)} with {engine} in its place"
        for engine, rate in trial.others.items()
    ]
    lines.append(f"writing        {_rate(writing.seconds_each)}")
    if trial.not_embedded:
        lost = ", ".join(f"{count} {reason}" for reason, count in trial.not_embedded.items())
        lines.append(f"not embedded   {lost}")
    share = getattr(trial, trial.largest_part()).seconds_each / each
    lines += [
        f"estimate       your {len(job.refs):,} images take about {duration(each * len(job.refs))} "
        f"({_rate(each)})",
        f"change first   {trial.largest_part()}, {100 * share:.0f} % of the time: "
        f"{_advice(trial.largest_part(), job, model, trial)}",
    ]
    return lines


def _advice(part: str, job: Job, model: EmbeddingModel, trial: Trial) -> str:
    if part == "writing":
        return "another --output_path, such as a disk of this machine"
    if part == "reading":
        where = job.refs[0].path
        if storage.is_remote(where):
            return "a machine near the images, or more --decode_threads"
        return "more cores; copies of compressed images in a syntax that decodes faster"
    if job.model.endpoint is not None:
        return "endpoint.parallel_requests in the model config, or more replicas of the endpoint"
    if model.device != "cpu":
        return "--precision=bfloat16, which gives slightly other numbers, or a larger --batch_size"
    advice = "a GPU; --precision=bfloat16, which gives slightly other numbers"
    if (engine := trial.faster_engine()) is not None:
        return f"--engine={engine}; {advice}"
    if job.model.engine == "tensorflow" and not trial.others:
        return f"--engine=openvino (pip install 'cxr-embed[openvino]'); {advice}"
    return advice


def _rate(seconds_each: float) -> str:
    """Returns `12 images/s (83 ms each)`."""
    return f"{_short(1 / seconds_each)} images/s ({_short(1e3 * seconds_each)} ms each)"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def duration(seconds: float) -> str:
    """Returns a time for people, such as `3 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours / 24:.1f} days"
