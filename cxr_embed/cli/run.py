"""The main job, `python -m run_inference` and `cxr-embed run`: flags in, records out."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from absl import flags

from cxr_embed import cloud_job, file_types, models, monitor, sources
from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import model_flags
from cxr_embed.errors import UsageError
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, RENDERINGS

if TYPE_CHECKING:
    from cxr_embed import job

USAGE = """\
Computes an embedding of each chest radiograph and writes one <dicom_id>.tfrecord per image.

  python -m run_inference --input_path DIR_OR_GLOB_OR_GS --output_path DIR_OR_GS [flags]

Flags of Apache Beam (--runner, --project, ...) may stand among these.
Exit status: 0 all done; 1 some images failed, see failures.csv; 2 wrong flags or input; 3 broke."""

_DIRECT_RUNNERS = ("", "DirectRunner", "direct", "FnApiRunner", "SwitchingDirectRunner")


def make_flags() -> flags.FlagValues:
    """Returns the flags of the main job, unparsed."""
    values = flags.FlagValues()

    def text(name: str, default: str | None, help_: str) -> None:
        flags.DEFINE_string(name, default, help_, flag_values=values)

    def choice(name: str, default: str, choices: Any, help_: str) -> None:
        flags.DEFINE_enum(name, default, list(choices), help_, flag_values=values)

    def number(name: str, default: int, help_: str, least: int = 0) -> None:
        flags.DEFINE_integer(name, default, help_, lower_bound=least, flag_values=values)

    def switch(name: str, help_: str) -> None:
        flags.DEFINE_boolean(name, False, help_, flag_values=values)

    text(
        "input_path",
        None,
        "a folder (searched recursively), one file, a glob, or gs://bucket/prefix",
    )
    text("input_list", None, "a text file (local or gs://) with one image path a line")
    choice(
        "input_file_type", "auto", file_types.FILE_TYPES, "auto looks at content, not at the name"
    )
    text("output_path", None, "a folder, made if missing, or gs://bucket/prefix")
    choice(
        "output_layout", "flat", sources.LAYOUTS,
        "flat: <dicom_id>.tfrecord; mirror: keeps the folders below --input_path",
    )  # fmt: skip
    text(
        "model_path", None,
        "a SavedModel folder, local or gs://; without it, the reference EfficientNet-L2, untrained",
    )  # fmt: skip
    text("model_config", None, "TOML that says how to feed and read a model, see configs/models/")
    text(
        "embeddings_project", None, "Google Cloud project of a hosted endpoint, see docs/models.md"
    )
    text("endpoint_location", None, "location of the hosted endpoint, such as us-central1")
    text(
        "endpoint_id", None, "a Vertex AI endpoint in place of a local model; images are sent to it"
    )
    choice(
        "rendering", "cxr_foundation", RENDERINGS,
        "cxr_foundation: the published embeddings' pixels; dicom: the standard's",
    )  # fmt: skip
    choice(
        "views",
        "all",
        ("all", "frontal"),
        "frontal: skip an image whose ViewPosition is there and is neither AP nor PA",
    )
    choice("device", "auto", models.DEVICES, "one that was asked for and is absent is an error")
    choice("engine", "tensorflow", models.ENGINES, "openvino runs on the CPU only")
    choice("precision", "float32", models.PRECISIONS, "what the model computes in")
    number("batch_size", 0, "images per model call; 0 picks one for the device")
    number(
        "decode_threads", 0,
        "threads that read and decode images; 0 picks by cores, device and model",
    )  # fmt: skip
    number("limit", 0, "only the first N images in sorted order; 0 is all")
    number("max_pixels", DEFAULT_MAX_PIXELS, "reject larger images, judged from their header", 1)
    switch("overwrite", "recompute what is already there")
    switch("skip_errors", "exit 0 although some images failed")
    number("max_failures", 0, "stop early once more than N images have failed; 0 is never")
    switch("profile", "also write seconds per stage and a flame graph into the run's folder")
    number(
        "verbosity", 0, "absl's: -1 warnings and errors only, 0 also progress, 1 also debugging", -3
    )
    return values


def main(arguments: list[str]) -> int:
    """Runs the main job.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit status, 0 to 3.
    """
    values = make_flags()
    if cli_flags.wants_help(arguments):
        print(cli_flags.help_text(USAGE, values))
        return 0
    from cxr_embed import job
    from cxr_embed.cli import terminal

    leftovers = cli_flags.parse(values, arguments)
    runner, beam_arguments = _beam_flags(values, leftovers)
    _require(values)
    if values.profile and runner != job.LOCAL_RUNNER:
        raise UsageError("--profile looks into this process: it needs --runner=DirectRunner")
    terminal.set_up_logging(values.verbosity)
    say = terminal.Speaker(quiet=values.verbosity < 0)
    model = model_flags.model_settings(values, say)
    the_job = _make_job(values, runner, beam_arguments, model)
    the_plan = job.plan(the_job, say)
    with _interruptible(the_plan.run_id, the_job.is_local) as interrupted:
        result = job.execute(the_plan, say, terminal.progress_of(say))
    terminal.print_summary(result)
    return _status(result, values.skip_errors, interrupted.is_set())


def _require(values: flags.FlagValues) -> None:
    if bool(values.input_path) == bool(values.input_list):
        raise UsageError("pass one of --input_path and --input_list")
    if not values.output_path:
        raise UsageError("--output_path is missing: a folder, or gs://bucket/prefix")
    model_flags.endpoint_of(values)


def _beam_flags(values: flags.FlagValues, leftovers: list[str]) -> tuple[str, list[str]]:
    """Returns the runner's name and Beam's flags, checked."""
    from cxr_embed.job import LOCAL_RUNNER

    if not leftovers:
        return LOCAL_RUNNER, []
    from cxr_embed import transforms

    bare = [argument for argument in leftovers if not argument.startswith("-")]
    if bare and leftovers[0] == bare[0]:
        cli_flags.refuse_leftovers(values, bare)
    try:
        runner = transforms.check_beam_flags(leftovers)
    except UsageError as error:
        unknown = getattr(error, "flags", None)
        if unknown:
            cli_flags.refuse_leftovers(values, unknown)
        raise
    if runner in _DIRECT_RUNNERS:
        return LOCAL_RUNNER, transforms.without_runner(leftovers)
    return runner, cloud_job.with_defaults(leftovers)


def _make_job(
    values: flags.FlagValues, runner: str, beam_arguments: list[str], model: models.ModelSettings
) -> job.Job:
    from cxr_embed import job

    return job.Job(
        output_path=values.output_path,
        model=model,
        input_path=values.input_path,
        input_list=values.input_list,
        file_type=values.input_file_type,
        layout=values.output_layout,
        rendering=values.rendering,
        views=values.views,
        batch_size=values.batch_size,
        limit=values.limit,
        overwrite=values.overwrite,
        max_failures=values.max_failures,
        max_pixels=values.max_pixels,
        runner=runner,
        beam_arguments=tuple(beam_arguments),
        decode_threads=values.decode_threads,
        profile=values.profile,
    )


@contextmanager
def _interruptible(run_id: str, is_local: bool) -> Iterator[threading.Event]:
    """Lets Ctrl-C finish the images in flight and write the tables; a second one kills.

    A job elsewhere does not hear it.
    """
    interrupted = threading.Event()
    if not is_local:
        try:
            yield interrupted
        except KeyboardInterrupt:
            words = (
                "\nthe job goes on where it runs; gcloud dataflow jobs cancel ends it on Dataflow"
            )
            print(words, file=sys.stderr)
            raise
        return

    def stop(number: int, _frame: Any) -> None:
        if interrupted.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        interrupted.set()
        monitor.monitor_of(run_id).ask_to_stop()
        print("\nstopping after the images in flight; once more to kill", file=sys.stderr)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(result: job.Result, skip_errors: bool, interrupted: bool) -> int:
    if interrupted:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 3
    if result.stopped_early:
        print("stopped early: more images failed than --max_failures allows", file=sys.stderr)
        return 1
    if result.handed_over:
        return 0
    if result.counts["not_attempted"]:
        print(f"{result.counts['not_attempted']} images have no outcome", file=sys.stderr)
        return 3
    return 1 if result.failed and not skip_errors else 0
