"""`cxr-embed report`: one self-contained HTML page about an output."""

from __future__ import annotations

from cxr_embed import storage
from cxr_embed.cli import flags as cli_flags
from cxr_embed.errors import UsageError
from cxr_embed.storage.parallel import usable_cores

USAGE = """\
Writes one self-contained HTML page about an output: its runs, outcomes and speed, pictures of what
the model saw, a map of the embeddings, near-duplicates, and images that look wrong.

  cxr-embed report --input_path OUTPUT --output_path report.html [flags]

Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""

# More at a time only wait for one another: decoding has processes of its own.
_MOST_THREADS = 16


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()

    values.text(
        "input_path",
        "an output of the main job or a packed data set, local, in a bucket or in an archive",
    )
    values.text(
        "output_path",
        "the page to write, .html, local or in a bucket; an existing file is replaced",
    )
    values.text(
        "labels_csv",
        "a CSV file of labels, one row per image or study; any column can colour the map",
    )
    values.text(
        "colour_by",
        "the column that colours the map at first; a menu on the page offers the others",
    )
    values.number(
        "images",
        200,
        "images to read again for pictures and for statistics of their headers; 0 reads none",
        least=0,
        most=5000,
    )
    values.number("points", 3000, "points on the map", least=1, most=20_000)
    values.choice(
        "map",
        "auto",
        ["auto", "pca", "umap"],
        "auto: principal components, and UMAP if it is installed",
    )
    values.decimal(
        "duplicate_similarity",
        0.98,
        "cosine around the mean from which images are near-duplicates",
        least=0.0,
        most=1.0,
    )
    values.number("seed", 0, "seed of all random choices")
    return values


def main(arguments: list[str]) -> int:
    """Writes a report; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    values.require("input_path", "output_path")
    check_page_path("output_path", values.output_path)
    from cxr_embed.cli import terminal
    from cxr_embed.cli.progress import tracking
    from cxr_embed.report.content import ReportSettings, make_report
    from cxr_embed.report.layout import draw_report

    report = make_report(
        ReportSettings(
            input_path=values.input_path,
            labels_csv=values.labels_csv,
            colour_by=values.colour_by,
            images=values.images,
            points=values.points,
            maps=values.map,
            duplicate_similarity=values.duplicate_similarity,
            seed=values.seed,
            threads=min(_MOST_THREADS, 2 * usable_cores()),
        ),
        terminal.Log(),
        lambda what, total, items: tracking(what, "images", total, items),
    )
    page = draw_report(report)
    cli_flags.write_file("output_path", values.output_path, page)
    print(f"{values.output_path}: {len(page) / 1e6:.1f} MB")
    return 0


def check_page_path(flag: str, path: str) -> None:
    """Raises UsageError where a page cannot be written to `path`, before any work is done."""
    if not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--{flag} {path} must end in .html")
    if problem := storage.why_not_writable(path.rpartition("/")[0] or "."):
        raise UsageError(f"--{flag} {path} cannot be written: {problem}")
