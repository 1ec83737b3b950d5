"""The main job, `python -m run_inference` and `cxr-embed run`: flags in, records out."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from cxr_embed import elements, file_types, members, models, storage
from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import model_flags, stopping
from cxr_embed.errors import UsageError
from cxr_embed.imaging.rendering import RENDERINGS
from cxr_embed.models import faster_engine, fetch
from cxr_embed.models.config import ModelConfig, read_model_config
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS, VIEWS
from cxr_embed.storage import find_images as sources

if TYPE_CHECKING:
    from cxr_embed.cli import terminal
    from cxr_embed.runs.plan import Job
    from cxr_embed.storage.search_archives import ArchiveSearch

USAGE = """\
Computes an embedding of each chest radiograph and writes one <dicom_id>.tfrecord per image.

  python -m run_inference --input_path PLACE --output_path PLACE [--model_path MODEL] [flags]

Flags of Apache Beam (--runner, --project, ...) are accepted too.
Exit status: 0 all done; 1 some images failed, see failures.csv; 2 wrong flags or input;
3 stopped by an error or by Ctrl-C: the same command continues."""

DECODE_SCALES = ("full", "auto")


def make_flags() -> cli_flags.FlagSet:
    """Returns the flags of the main job, unparsed."""
    values = cli_flags.FlagSet()
    values.text(
        "input_path",
        "a folder (searched recursively), one file or a glob, local or in a bucket (gs://, s3://, "
        "az://), an archive (.zip, .tar, .tar.gz, .tgz), or a DICOMweb store: "
        "dicomweb+https://host/root[/studies/UID[/series/UID]], see docs/places.md",
    )
    values.text(
        "dicomweb_query",
        "filters of the search in a DICOMweb store: Modality=DX&StudyDate=20200101-",
    )
    values.text("input_list", "a text file (local or in a bucket) with one image path per line")
    values.choice(
        "input_file_type",
        "auto",
        file_types.FILE_TYPES,
        "auto: as the content says; the name does not matter",
    )
    values.text(
        "output_path", "a folder, created if missing, or a prefix in a bucket (gs://, s3://, az://)"
    )
    values.choice(
        "output_layout",
        "flat",
        elements.LAYOUTS,
        "flat: <dicom_id>.tfrecord; mirror: keeps the folders below --input_path",
    )
    values.text(
        "model_path",
        "a SavedModel folder or an .onnx file: local, in a bucket or "
        "hf://owner/name[@revision][/path]; without it, the reference EfficientNet-L2, untrained",
    )
    values.text(
        "model_config",
        "a TOML file that describes the model's input and output, see docs/models.md",
    )
    values.text(
        "embeddings_project", "Google Cloud project of a hosted endpoint, see docs/models.md"
    )
    values.text(
        "endpoint_location", "location of the hosted endpoint", default=model_flags.DEFAULT_LOCATION
    )
    values.text(
        "endpoint_id",
        "a Vertex AI endpoint in place of a local model; images are sent to it; experimental: "
        "never run against the real service",
    )
    values.choice(
        "rendering",
        "cxr_foundation",
        RENDERINGS,
        "cxr_foundation: the published embeddings' pixels; dicom: the standard's",
    )
    values.choice(
        "views",
        "all",
        VIEWS,
        "frontal: skip an image if its ViewPosition is set and is neither AP nor PA",
    )
    values.choice(
        "device",
        "auto",
        models.DEVICES,
        "an absent device is an error; gpu and tpu are experimental and have never been run",
    )
    values.choice(
        "engine",
        None,
        models.engine_names(),
        "by default the model's own: onnxruntime for .onnx, else tensorflow; openvino runs "
        "SavedModels on the CPU",
    )
    values.choice(
        "precision",
        "float32",
        models.PRECISIONS,
        "the type that the model computes in; an ONNX graph keeps its own type",
    )
    values.number("batch_size", 0, "images per model call; 0 chooses by the device", least=0)
    values.number(
        "decode_threads",
        0,
        "threads that read and decode images; 0 chooses by cores, device and model",
        least=0,
    )
    values.choice(
        "decode_scale",
        "full",
        DECODE_SCALES,
        "auto: decode JPEG 2000 and HTJ2K at the lowest resolution that covers the model's input; "
        "up to 29 times as fast, but it changes the embeddings, see docs/scaling.md",
    )
    values.number("limit", 0, "only the first N images in sorted order; 0 is all", least=0)
    values.number(
        "max_pixels",
        DEFAULT_MAX_PIXELS,
        "reject an image whose header gives more pixels",
        least=1,
    )
    values.switch(
        "search_archives",
        "also embed the images in .zip, .tar, .tar.gz and .tgz files below --input_path",
    )
    values.decimal(
        "watch",
        0,
        "list the input again every N seconds and embed new images, until Ctrl-C; 0 lists it once",
        least=0,
    )
    values.switch("overwrite", "compute existing records again")
    values.switch(
        "moved_inputs",
        "the images have moved: keep existing records that name other paths",
    )
    values.switch("skip_errors", "exit with 0 even if some images failed")
    values.number(
        "max_failures", 0, "stop when more than N images have failed; 0 never stops", least=0
    )
    values.number(
        "verbosity",
        0,
        "-1 shows warnings and errors only, 0 also progress, 1 also debugging messages",
        least=-3,
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
    rest = cli_flags.begin(values, arguments, USAGE, takes_rest=True)
    if rest is None:
        return 0
    from cxr_embed.cli import terminal
    from cxr_embed.cli.progress import watching
    from cxr_embed.runs.archives import finished_archives
    from cxr_embed.runs.execute import execute_run
    from cxr_embed.runs.plan import count_of_images, plan_run
    from cxr_embed.storage.search_archives import ArchiveSearch

    runner, beam_arguments = _beam_flags(values, rest)
    _require(values)
    log = terminal.Log(quiet=values.verbosity < 0)
    finished = finished_archives([] if values.overwrite else _outputs(values))
    make_job = functools.partial(_job, values, runner, beam_arguments, log)
    if values.watch:
        _require_watchable(values, runner)
        from cxr_embed.cli.watch import Watch

        find_all = functools.partial(find, values, may_be_empty=True)
        watch = Watch(find_all, make_job, finished, values.watch, log)
        return watch.until_stopped(values.skip_errors)
    archives = ArchiveSearch(finished)
    refs = find(values, archives)
    log(f"found {count_of_images(len(refs))} in {values.input_list or values.input_path}")
    closed = [ref.path for ref in refs if members.is_archive(ref.path)]
    if closed and not members.is_archive(values.input_path or ""):
        log(f"warning: archives stay closed without --search_archives, such as {closed[0]}")
    plan = plan_run(replace(make_job(), refs=refs, archives=archives.listed), log)
    with stopping.run_interruptible(plan):
        unit = "embeddings" if plan.names else "images"
        results = execute_run(plan, log, watching("embedding", unit, quiet=values.verbosity < 0))
    for output, result in zip(plan.outputs, results, strict=True):
        terminal.print_summary(result, output.output)
    return max(terminal.status_of(result, values.skip_errors) for result in results)


def _require(values: cli_flags.FlagSet) -> None:
    if bool(values.input_path) == bool(values.input_list):
        raise UsageError("pass one of --input_path and --input_list")
    values.require("output_path")
    if values.model_path:
        fetch.check_address(values.model_path)
    model_flags.endpoint_of(values)


def _require_watchable(values: cli_flags.FlagSet, runner: str) -> None:
    if not math.isfinite(values.watch):
        raise UsageError(f"--watch {values.watch}: pass a number of seconds")
    if runner:
        raise UsageError(
            f"--watch works on this machine only, not with --runner={runner}, which would start a "
            "job each round: leave --watch out and run the command again when images have arrived"
        )
    if values.limit:
        raise UsageError("--limit cannot be used with --watch, which embeds all new images")


def find(
    values: cli_flags.FlagSet,
    archives: ArchiveSearch | None = None,
    *,
    may_be_empty: bool = False,
) -> list[elements.ImageRef]:
    """Returns the images that the main job's flags ask for; see `find_images`."""
    return sources.find_images(
        values.input_path, values.input_list, layout=values.output_layout, limit=values.limit,
        output_path=values.output_path, search_archives=values.search_archives,
        archives=archives, may_be_empty=may_be_empty, dicomweb_query=values.dicomweb_query,
    )  # fmt: skip


def _outputs(values: cli_flags.FlagSet) -> list[str]:
    """Returns the folder of each output, usually of one."""
    path = values.output_path
    config = read_model_config(values.model_config) if values.model_config else ModelConfig()
    return [storage.join(path, name) for name in models.outputs.parts(config)] or [path]


def _beam_flags(values: cli_flags.FlagSet, rest: list[str]) -> tuple[str, list[str]]:
    """Returns the runner's name, empty for the in-process one, and Beam's flags, checked."""
    if not rest:
        return "", []
    from cxr_embed.pipeline import beam_flags

    bare = [argument for argument in rest if not argument.startswith("-")]
    if bare and rest[0] == bare[0]:
        cli_flags.refuse_unknown(values, bare)
    try:
        return beam_flags.runner_and_flags(rest)
    except beam_flags.UnknownFlags as error:
        cli_flags.refuse_unknown(values, error.flags)
        raise


def _job(
    values: cli_flags.FlagSet, runner: str, beam_arguments: list[str], log: terminal.Log
) -> Job:
    """Returns the job that the flags describe, still without images."""
    from cxr_embed.runs.plan import Job

    model = model_flags.model_settings(values, log)
    if not (values.engine or runner) and (hint := faster_engine.hint(model)):
        log(hint)
    return Job(
        refs=[],
        output_path=values.output_path,
        model=model,
        file_type=values.input_file_type,
        layout=values.output_layout,
        rendering=values.rendering,
        views=values.views,
        batch_size=values.batch_size,
        overwrite=values.overwrite,
        moved_inputs=values.moved_inputs,
        max_failures=values.max_failures,
        max_pixels=values.max_pixels,
        runner=runner,
        beam_arguments=tuple(beam_arguments),
        decode_threads=values.decode_threads,
        decode_scale=values.decode_scale,
    )
