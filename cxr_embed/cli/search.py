"""`cxr-embed search`: the images most similar to one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cxr_embed import models
from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli.report import check_page_path
from cxr_embed.embeddings.neighbours import ENGINES
from cxr_embed.storage.parallel import usable_cores

if TYPE_CHECKING:
    from cxr_embed.search.gallery import Hit

USAGE = """\
Finds the images whose embeddings are most similar to that of one image, by cosine, exactly.

  cxr-embed search --input_path OUTPUT --query ID_OR_RECORD_OR_IMAGE [flags]

On a terminal the result is a table, elsewhere lines of tab-separated values.
Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""

_MOST_THREADS = 8


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.text(
        "input_path",
        "an output of the main job or a packed data set, local, in a bucket or in an archive",
    )
    values.text(
        "query",
        "a dicom id or path of an image in --input_path, a record file, or an image file, which is "
        "embedded with the same model and settings",
    )
    values.number("k", 10, "how many images to find", least=1)
    values.text("html", "also write a page with pictures, .html, local or in a bucket")
    values.choice(
        "index",
        "auto",
        ENGINES,
        "faiss: use FAISS (extra explore); the result is the same, and one query is not faster",
    )
    values.text(
        "model_path",
        "for a query that is an image file: where the model is now; by default as in the run",
    )
    values.choice(
        "device",
        "auto",
        models.DEVICES,
        "for a query that is an image file: the device to run the model on",
    )
    return values


def main(arguments: list[str]) -> int:
    """Searches; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    values.require("input_path", "query")
    if values.html is not None:
        check_page_path("html", values.html)
    _search(values)
    return 0


def _search(values: cli_flags.FlagSet) -> None:
    import numpy as np

    from cxr_embed.cli import terminal
    from cxr_embed.embeddings import neighbours as search
    from cxr_embed.embeddings.loading import load_embeddings
    from cxr_embed.embeddings.opening import place_of_embeddings
    from cxr_embed.runs.fingerprint import read_output_config
    from cxr_embed.search import gallery, queries

    log = terminal.Log()
    path = place_of_embeddings(values.input_path)
    embeddings = load_embeddings(path)
    query = queries.resolve(
        values.query, embeddings, path,
        model_path=values.model_path, device=values.device, log=log,
    )  # fmt: skip
    found = search.nearest(
        embeddings.values, query.embedding[np.newaxis], values.k,
        leave_out=np.array([query.row]) if query.row >= 0 else None, engine=values.index,
    )  # fmt: skip
    hits = [
        gallery.Hit(float(similarity), embeddings.ids[row], embeddings.image_ids[row])
        for row, similarity in zip(found.rows[0], found.similarities[0], strict=True)
    ]
    if values.html:
        config = read_output_config(path)
        rendering = config.fingerprint.get("rendering") if config else None
        threads = min(_MOST_THREADS, 2 * usable_cores())
        page = gallery.draw_gallery(
            values.query, query, hits,
            output_path=path, rendering=rendering or "cxr_foundation", threads=threads,
        )  # fmt: skip
        cli_flags.write_file("html", values.html, page)
        log(f"{values.html} shows them")
    _print(hits, f"{values.query}: {query.words}, among {len(embeddings)} embeddings")


def _print(hits: list[Hit], title: str) -> None:
    if not sys.stdout.isatty():
        print("rank\tcosine\tdicom_id\timage_id")
        for rank, hit in enumerate(hits, 1):
            print(rank, f"{hit.similarity:.6f}", _plain(hit.dicom_id), _plain(hit.path), sep="\t")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table("", "cosine", "dicom_id", "image_id", box=None, header_style="bold")
    shown.columns[0].justify = shown.columns[1].justify = "right"
    for rank, hit in enumerate(hits, 1):
        names = (Text(_plain(name), overflow="fold") for name in (hit.dicom_id, hit.path))
        shown.add_row(str(rank), f"{hit.similarity:.4f}", *names)
    console = Console()
    console.print(Text(_plain(title), style="dim"))
    console.print(shown)


def _plain(name: str) -> str:
    """Returns a name that a terminal can be given: it must not command it, nor break a line."""
    return "".join(c if c.isprintable() else "?" for c in name)
