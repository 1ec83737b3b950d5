"""Draws the pictures of a report: sample, maps, near-duplicates and images that may be wrong."""

from __future__ import annotations

from typing import Any

from cxr_embed.report import charts
from cxr_embed.report.colouring import NO_VALUE, Colouring
from cxr_embed.report.content import (
    SHOWN_GROUPS,
    SHOWN_ODDITIES,
    SHOWN_OF_GROUP,
    Report,
)
from cxr_embed.report.oddities import LEAST_PICTURES, ODDITIES
from cxr_embed.report.page import Html, tag
from cxr_embed.report.pictures_on_page import Pictures, gallery, wall

# Further pictures are in a collapsed element.
_SHOWN_ON_WALL = 96


def wall_of_pictures(report: Report, pictures: Pictures) -> list[Html]:
    """Returns the pictures of all images that were read again."""
    rows = sorted(report.looks)
    if not rows:
        return [tag("p", "Pictures are turned off (--images=0).")]
    seen = [row for row in rows if pictures.has(row)]
    lost = len(rows) - len(seen)
    rendering = report.rendering or "cxr_foundation"
    words = (
        f"{len(seen):,} of {len(report.embeddings):,} images in the run's rendering "
        f"({rendering}) and with their own aspect ratio. A model with a square input gets them "
        "stretched to a square."
    )
    if lost:
        words += f" {lost:,} more could not be read again: moved, changed, or not accessible."
    first, rest = rows[:_SHOWN_ON_WALL], rows[_SHOWN_ON_WALL:]
    if not seen:
        first, rest = rows[:12], []
    parts = [tag("p", words), wall([pictures.image(row) for row in first])]
    if rest:
        summary = tag("summary", f"{len(rest):,} more")
        parts.append(tag("details", summary, wall([pictures.image(row) for row in rest])))
    return parts


def draw_maps(report: Report) -> list[Html]:
    """Returns the maps with their legend; `map_data` returns the data for their script."""
    colouring = report.colourings[0] if report.colourings else None
    shares = report.components.shares
    figures = []
    for number, map_ in enumerate(report.maps):
        words = map_.name
        if number == 0 and len(shares) > 1:
            words += f": the first two have {shares[0]:.1%} and {shares[1]:.1%} of the variance"
        label = f"Map of {len(report.plotted):,} embeddings by {map_.name}"
        codes = colouring.codes if colouring else [-1] * len(report.plotted)
        drawn = charts.scatter(
            map_.coordinates, codes, identifier=f"map-{number}", label=label,
            is_ordered=bool(colouring and colouring.is_ordered),
        )  # fmt: skip
        figures.append(tag("figure", drawn, tag("figcaption", words)))
    total, plotted = len(report.embeddings), len(report.plotted)
    which = f"{plotted:,} of {total:,} embeddings" if plotted < total else f"All {total:,}"
    words = f"{which}, one point each. Near points are similar; the axes have no unit. "
    words += "Point at one for its picture, or focus a map and use the arrow keys."
    return [
        tag("p", words, id="map-help"),
        _legend(report.colourings),
        tag("div", *figures, class_="maps", data_count=len(figures)),
        tag("div", id="card", role="status", hidden=True),
        *_label_counts(report),
    ]


def _legend(colourings: list[Colouring]) -> Html:
    if not colourings:
        return Html()
    options = [
        tag("option", c.name, value=number, selected=not number)
        for number, c in enumerate(colourings)
    ]
    choice = tag("label", "Colour by ", tag("select", *options, id="colour-by"))
    return tag("div", choice, tag("ul", *_keys(colourings[0]), id="legend"), class_="legend")


def _keys(colouring: Colouring) -> list[Html]:
    prefix = "s" if colouring.is_ordered else "c"
    keys = [
        tag("li", _dot(f"{prefix}{code}"), f"{name} ", tag("span", f"{n:,}", class_="dim"))
        for code, (name, n) in enumerate(colouring.groups)
    ]
    if colouring.without:
        count = tag("span", f"{colouring.without:,}", class_="dim")
        keys.append(tag("li", _dot("none"), f"{NO_VALUE} ", count))
    return keys


def _dot(class_: str) -> Html:
    return tag(
        "svg", tag("circle", cx=6, cy=6, r=4.5, class_=class_), viewBox="0 0 12 12", class_="dot",
        aria_hidden="true",
    )  # fmt: skip


def _label_counts(report: Report) -> list[Html]:
    labels = report.labels
    if labels is None:
        return []
    total = len(report.embeddings)
    words = (
        f"Labels are matched by {labels.key}: {total - labels.unlabelled:,} of {total:,} "
        f"embeddings have a row, {labels.unmatched:,} of the table's rows match no embedding."
    )
    return [tag("p", words, class_="dim")]


def map_data(report: Report, pictures: Pictures) -> dict[str, Any]:
    """Returns the script's data of each point; called after all pictures have been placed."""
    embeddings = report.embeddings
    points = []
    for row in report.plotted:
        look = report.looks.get(row)
        problem = look.problem.replace("_", " ") if look else ""
        points.append(
            [_text(embeddings.ids[row]), _text(embeddings.image_ids[row]),
             pictures.identifier(row), problem]
        )  # fmt: skip
    columns = [
        {"name": c.name, "ordered": c.is_ordered, "groups": c.groups, "codes": c.codes,
         "without": c.without}
        for c in report.colourings
    ]  # fmt: skip
    return {"points": points, "columns": columns, "noValue": NO_VALUE}


def _text(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


def near_duplicates(report: Report, pictures: Pictures) -> list[Html]:
    """Returns groups of embeddings that are nearly the same."""
    least = report.settings.duplicate_similarity
    basis = f"at a cosine of {least:g} or more after subtracting the mean of all"
    if not report.groups:
        return [tag("p", f"None, {basis}.")]
    images = sum(len(group.rows) for group in report.groups)
    noun = "group" if len(report.groups) == 1 else "groups"
    words = f"{len(report.groups):,} {noun} of {images:,} images in all, {basis}."
    if len(report.groups) > SHOWN_GROUPS:
        words += f" The closest {SHOWN_GROUPS} are shown."
    if report.closeness.is_sample:
        words += (
            f" Only a random sample of {len(report.closeness.rows):,} embeddings was compared with "
            "all, so there may be more."
        )
    shown = []
    for group in report.groups[:SHOWN_GROUPS]:
        figures = [pictures.figure(row) for row in group.rows[:SHOWN_OF_GROUP]]
        more = len(group.rows) - len(figures)
        title = f"cosine {group.similarity:.4f}"
        title += f", {len(group.rows):,} images" if len(group.rows) > 2 else ""
        title += f", {more:,} of them not shown" if more else ""
        shown.append(tag("div", tag("h3", title), gallery(figures), class_="group"))
    return [tag("p", words), tag("div", *shown, class_="groups")]


def odd_images(report: Report, pictures: Pictures) -> list[Html]:
    """Returns images that may be wrong, and those that are farthest from all others."""
    odd = sorted(report.oddities.items(), key=lambda item: (list(ODDITIES).index(item[1][0]), item))
    seen = sum(pictures.has(row) for row in report.looks)
    words = (
        f"Guesses from a comparison of the {seen:,} pictures above with their average, and from "
        "the distances of all embeddings to their nearest neighbours."
    )
    if seen < LEAST_PICTURES:
        words += f" The comparison needs at least {LEAST_PICTURES} pictures."
    parts = [tag("p", words)]
    if odd:
        figures = [
            pictures.figure(row, *(code.replace("_", " by ") + "?" for code in codes))
            for row, codes in odd[:SHOWN_ODDITIES]
        ]
        if len(odd) > len(figures):
            parts.append(tag("p", f"{len(odd):,} images; the first {len(figures)} are shown."))
        parts.append(gallery(figures))
        codes_met = dict.fromkeys(code for _, codes in odd for code in codes)
        terms = [
            tag("li", tag("b", code.replace("_", " by ")), f": {ODDITIES[code]}")
            for code in codes_met
        ]
        parts.append(tag("ul", *terms, class_="dim"))
    else:
        parts.append(tag("p", "None."))
    return [*parts, *_farthest(report, pictures)]


def _farthest(report: Report, pictures: Pictures) -> list[Html]:
    similarities = dict(
        zip(report.closeness.rows.tolist(), report.closeness.mean_similarities, strict=True)
    )
    if len(similarities) < 2:
        return []
    ordered = sorted(similarities.values())
    figures = [pictures.figure(row, f"{similarities[row]:.3f}") for row in report.farthest]
    words = (
        "The images farthest from their nearest neighbours, with the mean cosine to these. The "
        f"median image has {ordered[len(ordered) // 2]:.3f}."
    )
    return [tag("h3", "Farthest from all others"), tag("p", words), gallery(figures)]
