"""Draws the results of a search as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_embed.report.page import document, tag, theme_button
from cxr_embed.report.pictures_on_page import Pictures
from cxr_embed.report.thumbnails import look_at_all
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
    paths = [query.path, *(hit.path for hit in hits)]
    looks = dict(enumerate(look_at_all(paths, rendering, threads)))
    pictures = Pictures(looks, [name, *(hit.dicom_id for hit in hits)], paths)
    items = []
    for rank, hit in enumerate(hits, 1):
        caption = tag(
            "figcaption",
            tag("span", tag("span", f"{rank}. ", class_="rank"), f"{hit.similarity:.4f}",
                class_="value"),
            tag("span", hit.dicom_id, class_="name", title=hit.dicom_id),
            tag("span", hit.path, class_="note"),
        )  # fmt: skip
        items.append(tag("li", tag("figure", pictures.image(rank), caption)))
    facts = [
        ("Query", name), ("Type", query.words), ("Image", query.path),
        ("Searched", output_path), ("Measure", "cosine of the embeddings, exact"),
    ]  # fmt: skip
    listed = tag("dl", *([tag("dt", term), tag("dd", fact)] for term, fact in facts))
    found = f"{len(hits)} nearest images" if len(hits) != 1 else "The nearest image"
    return document(
        f"Images like {name}",
        tag("header", tag("div", tag("p", "Similar chest radiographs", class_="kind"),
            theme_button(), class_="bar-top"), tag("h1", f"Images like {name}")),
        tag("main",
            tag("section", tag("div", tag("figure", pictures.image(0)), listed, class_="query"),
                aria_label="Query"),
            tag("section", tag("h2", found), tag("ol", *items, class_="results"))),
    )  # fmt: skip
