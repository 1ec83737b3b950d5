"""Draws the results of a search as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_embed.report.page import render
from cxr_embed.report.thumbnails import Picture, look_at_all
from cxr_embed.search.queries import Query


@dataclass(frozen=True)
class Hit:
    """A result of a search: cosine to the query, dicom id and path of the image."""

    similarity: float
    dicom_id: str
    path: str


def draw_gallery(
    name: str,
    query: Query,
    hits: Sequence[Hit],
    *,
    output_path: str,
    rendering: str,
    threads: int,
) -> bytes:
    """Returns the page. An image that cannot be read again has the reason instead of a picture.

    Args:
        name: the query as the user gave it.
        query: the resolved query.
        hits: the results, the most similar first.
        output_path: the searched output.
        rendering: the rendering of the pictures.
        threads: number of images to read in parallel.
    """
    names = [name, *(hit.dicom_id for hit in hits)]
    paths = [query.path, *(hit.path for hit in hits)]
    shown = zip(names, paths, look_at_all(paths, rendering, threads), strict=True)
    return render(
        "search/templates/gallery.html.j2",
        name=name,
        hits=hits,
        pictures=[Picture(row, *picture) for row, picture in enumerate(shown)],
        facts=[
            ("Query", name), ("Type", query.words), ("Image", query.path),
            ("Searched", output_path), ("Measure", "cosine of the embeddings, exact"),
        ],
    )  # fmt: skip
