"""`cxr-embed inspect`: how the program reads one file, as text and as a picture."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from cxr_embed import file_types, storage
from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import terminal
from cxr_embed.errors import UsageError, cannot_be_read
from cxr_embed.imaging import drawing
from cxr_embed.imaging.inspection import Element, Inspection, Rendered, inspect_file
from cxr_embed.imaging.rendering import RENDERINGS
from cxr_embed.models.config import ModelConfig, read_model_config
from cxr_embed.outcomes import FAILURE_REASONS, WARNINGS
from cxr_embed.radiograph import DEFAULT_MAX_PIXELS

USAGE = """\
Shows how one image file becomes pixels: the tags that decide the pixels, the steps, the warnings,
and both renderings as a picture. Names, dates and other texts of the header are not read.

  cxr-embed inspect FILE [flags]

Exit status: 0 rendered; 1 rejected; 2 wrong flags or input."""

_NAME_WIDTH = 28


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.text("input_path", "the file, local or in a bucket; the same as FILE")
    values.text(
        "output_path", "a .png to write, with the renderings side by side; local or in a bucket"
    )
    values.choice(
        "input_file_type",
        "auto",
        file_types.FILE_TYPES,
        "auto: as the content says; the name does not matter",
    )
    values.choice("rendering", "both", ["both", *RENDERINGS], "which renderings to show")
    values.number(
        "size",
        800,
        "largest height of a picture in the .png, in pixels",
        least=16,
        most=10_000,
    )
    values.text("model_path", "also show the input of this model")
    values.text("model_config", "a TOML file that describes the model's input, see docs/models.md")
    values.number(
        "max_pixels", DEFAULT_MAX_PIXELS, "reject an image whose header gives more pixels", least=1
    )
    values.switch("show_patient_tags", "also print names, ids and dates, which are patient data")
    return values


def main(arguments: list[str]) -> int:
    """Inspects a file; returns the exit status."""
    values = make_flags()
    rest = cli_flags.begin(values, arguments, USAGE, takes_rest=True)
    if rest is None:
        return 0
    path = _input_path(values, rest)
    data = _read(path)
    _check_output(values.output_path, path)
    found = inspect_file(
        data,
        list(RENDERINGS) if values.rendering == "both" else [values.rendering],
        file_type=values.input_file_type,
        max_pixels=values.max_pixels,
        with_patient=values.show_patient_tags,
    )
    panels = [_panel(rendered, found) for rendered in found.rendered]
    panels += _model_panels(values, found)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without block characters shows "?"
        sys.stdout.reconfigure(errors="replace")
    for line in describe(path, found):
        print(line)
    for panel in panels[len(found.rendered) :]:
        print(f"\n{panel.title}\n  {panel.caption}")
    if values.output_path:
        cli_flags.write_file(
            "output_path", values.output_path, drawing.draw_png(panels, values.size)
        )
        print(f"\n{values.output_path} shows it")
    elif sys.stdout.isatty():
        _preview(panels)
    elif any(panel.pixels is not None for panel in panels):
        print("\n--output_path FILE.png draws it")
    return 1 if any(rendered.rejected for rendered in found.rendered) else 0


def _input_path(values: cli_flags.FlagSet, rest: list[str]) -> str:
    files = [word for word in rest if not word.startswith("-")]
    cli_flags.refuse_unknown(values, [word for word in rest if word.startswith("-")])
    if len(files) + bool(values.input_path) != 1:
        raise UsageError("pass one file: cxr-embed inspect FILE")
    path = str(values.input_path or files[0])
    storage.check_place(path, "FILE")
    return path


def _check_output(output: str | None, path: str) -> None:
    if output is None:
        return
    if not output.lower().endswith(".png"):
        raise UsageError(f"--output_path {output} must end in .png")
    is_local = not storage.is_remote(output) and not storage.is_remote(path)
    if output == path or (is_local and Path(output).exists() and Path(output).samefile(path)):
        raise UsageError(f"--output_path {output} is the input itself")


def _read(path: str) -> bytes:
    if not storage.is_remote(path) and Path(path).is_dir():
        raise UsageError(f"{path} is a folder: pass one file in it")
    try:
        return storage.read_bytes(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except OSError as error:
        raise cannot_be_read(path, error) from error


def describe(path: str, found: Inspection) -> Iterator[str]:
    """Yields lines that describe what was found.

    Args:
        path: as the user gave it.
        found: the result of the inspection.
    """
    yield f"{path}: {found.file_type}, {found.bytes:,} bytes"
    if found.transfer_syntax:
        yield ""
        yield f"{'Transfer syntax':<{_NAME_WIDTH}} {found.transfer_syntax}"
        yield f"{'Decoder':<{_NAME_WIDTH}} {found.decoder}"
    yield from _describe_elements("Tags that decide the pixels", found.elements)
    if found.absent:
        absent = f"absent: {', '.join(found.absent)}"
        yield from textwrap.wrap(absent, 96, initial_indent="  ", subsequent_indent="          ")
    yield from _describe_elements("Patient", found.patient)
    for rendered in found.rendered:
        yield ""
        yield from _describe_rendering(rendered, found)


def _describe_elements(title: str, elements: Sequence[Element]) -> Iterator[str]:
    if not elements:
        return
    yield f"\n{title}"
    for element in elements:
        yield f"  {element.name:<{_NAME_WIDTH}} {element.number}  {element.value}"


def _describe_rendering(rendered: Rendered, found: Inspection) -> Iterator[str]:
    yield _title(rendered, found)
    for number, step in enumerate(rendered.steps, 1):
        yield f"  {number}. {step}"
    radiograph = rendered.radiograph
    if radiograph is None:
        yield from (f"  {line}" for line in _rejection_lines(rendered))
        return
    pixels, top = radiograph.pixels, radiograph.full_range
    yield f"  gives {_summary(pixels)}"
    yield f"  0 |{drawing.text_histogram(pixels)}| {top}"
    darkest, brightest = (pixels == 0).mean(), (pixels == top).mean()
    yield f"  {darkest:.1%} of the pixels are 0, {brightest:.1%} are {top}"
    for code in radiograph.warnings:
        yield f"  warning {code}: {WARNINGS[code]}"


def _rejection_lines(rendered: Rendered) -> list[str]:
    rejected = rendered.rejected
    if rejected is None:
        return []
    lines = [f"rejected, stage {rejected.stage}: {rejected.reason}"]
    lines.append(FAILURE_REASONS[rejected.reason].meaning)
    return [*lines, rejected.detail] if rejected.detail else lines


def _summary(pixels: np.ndarray) -> str:
    rows, columns = pixels.shape
    return (
        f"{rows} x {columns} {pixels.dtype}, {pixels.min()}..{pixels.max()}, "
        f"mean {pixels.mean():.1f}"
    )


def _panel(rendered: Rendered, found: Inspection) -> drawing.Panel:
    title = _title(rendered, found)
    if rendered.radiograph is None:
        first, *rest = _rejection_lines(rendered)
        return drawing.Panel(title, first, None, rest)
    pixels = rendered.radiograph.pixels
    notes = [f"{number}. {step}" for number, step in enumerate(rendered.steps, 1)]
    notes += [f"warning: {code}" for code in rendered.radiograph.warnings]
    return drawing.Panel(title, _summary(pixels), pixels, notes)


def _title(rendered: Rendered, found: Inspection) -> str:
    # PNG and JPEG are the same in both.
    return f"Rendering {rendered.rendering}" if found.file_type.startswith("DICOM") else "Pixels"


def _model_panels(values: cli_flags.FlagSet, found: Inspection) -> list[drawing.Panel]:
    """Returns a panel of what the model gets for each rendering; loads the model."""
    rendered = [r for r in found.rendered if r.radiograph is not None]
    if not values.model_path or not rendered:
        return []
    from cxr_embed import models
    from cxr_embed.models import fetch

    config = read_model_config(values.model_config) if values.model_config else ModelConfig()
    fetch.check_address(values.model_path)
    log = terminal.Log()
    settings = models.ModelSettings.of_path(values.model_path, config=config, device="cpu", log=log)
    model = models.load(settings)
    return [
        _model_panel(f"Into the model, from {r.rendering}", model.fit(r.radiograph), model.input)
        for r in rendered
        if r.radiograph is not None
    ]


def _model_panel(title: str, fitted: Any, wanted: Any) -> drawing.Panel:
    """Draws what `EmbeddingModel.fit` gives: an array, or a serialized example around a PNG."""
    if isinstance(fitted, bytes):
        png = np.frombuffer(fitted[fitted.index(b"\x89PNG") :], np.uint8)
        pixels = cast(np.ndarray, cv2.imdecode(png, cv2.IMREAD_UNCHANGED))
        return drawing.Panel(title, f"a PNG of {_summary(pixels)}, in a tf.Example", pixels)
    shape = " x ".join(str(size) for size in fitted.shape)
    caption = f"{shape} {fitted.dtype}, {fitted.min():.4g}..{fitted.max():.4g}"
    low, high = getattr(wanted, "low", 0.0), getattr(wanted, "high", 1.0)
    if fitted.dtype.kind == "u":
        low, high = 0.0, float(np.iinfo(fitted.dtype).max)
    grey = np.clip((fitted[:, :, 0].astype(np.float64) - low) / (high - low), 0.0, 1.0)
    return drawing.Panel(title, caption, np.rint(grey * 255).astype(np.uint8))


def _preview(panels: list[drawing.Panel]) -> None:
    """Draws the pictures in the terminal, two pixels a character."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(highlight=False)
    shown = [(panel.title, panel.pixels) for panel in panels if panel.pixels is not None]
    if not shown or console.color_system is None:
        return
    columns = max(16, console.width // len(shown) - 2)
    cells = drawing.block_rows([p for _, p in shown], columns, max(8, console.height - 4))
    styles: dict[tuple[int, int], Any] = {}
    print("\n" + "".join(f"{title[:columns]:<{columns + 2}}" for title, _ in shown))
    for row in cells:
        for upper, lower in set(row) - styles.keys():
            styles[upper, lower] = _grey_style(upper, lower)
        blocks = [Segment("▀", styles[cell]) for cell in row]
        console.print(Segments([*blocks, Segment.line()]), end="")


def _grey_style(upper: int, lower: int) -> Any:
    from rich.color import Color
    from rich.style import Style

    return Style(
        color=Color.from_rgb(upper, upper, upper), bgcolor=Color.from_rgb(lower, lower, lower)
    )
