"""Draws a report as one HTML page: the order of its sections, its head, texts and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_embed.outcomes import WARNINGS
from cxr_embed.report import charts, run_sections
from cxr_embed.report import picture_sections as shown
from cxr_embed.report.content import Report
from cxr_embed.report.page import Html, data_block, document, table, tag, theme_button
from cxr_embed.report.pictures_on_page import Pictures

_SHOWN_SIZES = 8
_SHOWN_VALUES = 8


def draw_report(report: Report) -> bytes:
    """Returns the page."""
    pictures = Pictures(report.looks, report.embeddings.ids, report.embeddings.image_ids)
    sections = [
        _section("run", "Model and runs", *run_sections.what_ran(report)),
        _section("outcomes", "Outcome of each image", *run_sections.outcomes(report)),
        _section("pace", "Speed", *run_sections.pace(report)),
        _section("inputs", "Inputs", *_inputs(report)),
        _section("pictures", "Pictures", *shown.wall_of_pictures(report, pictures)),
        _section("space", "The embeddings", *_lengths_and_angles(report)),
        _section("map", "Map", *shown.draw_maps(report)),
        _section("duplicates", "Near-duplicates", *shown.near_duplicates(report, pictures)),
        _section("oddities", "Images that may be wrong", *shown.odd_images(report, pictures)),
        _section("method", "How this page was made", *_method(report)),
    ]
    links = [tag("a", title, href=f"#{name}") for name, title, _ in sections]
    contents = tag("nav", *links, aria_label="Contents")
    return document(
        f"Embeddings of {report.settings.input_path}",
        tag("header", _head(report), contents),
        tag("main", *(section for *_, section in sections)),
        data_block("map-data", shown.map_data(report, pictures)),
    )


def _section(name: str, title: str, *content: object) -> tuple[str, str, Html]:
    heading = tag("h2", title, id=f"{name}-title")
    return name, title, tag(
        "section", heading, *content, id=name, aria_labelledby=f"{name}-title"
    )  # fmt: skip


def _head(report: Report) -> list[Html]:
    count, size = report.embeddings.values.shape
    ends = report.ends
    figures = [
        ("embeddings", f"{count:,}"),
        ("floats each", f"{size:,}"),
        ("images failed", f"{ends.count('failed'):,}"),
        ("images skipped", f"{ends.count('skipped'):,}"),
        ("runs", f"{len(report.runs):,}"),
    ]
    if fastest := run_sections.main_run(report.runs):
        speed = float(fastest.manifest.get("images_per_second") or 0)
        figures.append(("images a second", f"{speed:,.1f}"))
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in figures]
    return [
        tag("div", tag("p", "Embeddings of chest radiographs", class_="kind"), theme_button(),
            class_="bar-top"),
        tag("h1", report.settings.input_path),
        tag("p", f"cxr-embed {report.version}, {report.made:%Y-%m-%d %H:%M} UTC", class_="dim"),
        tag("dl", *items, class_="figures"),
    ]  # fmt: skip


def _inputs(report: Report) -> list[Html]:
    parts = [*_sizes(report), *_warnings(report)]
    if report.headers:
        sampled = max(sum(n for _, n in values) for values in report.headers.values())
        parts.append(
            tag("p", f"Headers of a random sample of {sampled:,} images. Text is shown only if it "
                "is a defined term of the DICOM standard.")
        )  # fmt: skip
        tables = [
            _count_table(name, [(value, number) for value, number in values[:_SHOWN_VALUES]],
                         sum(number for _, number in values))
            for name, values in report.headers.items()
        ]  # fmt: skip
        parts.append(tag("div", *tables, class_="columns"))
    return parts or [tag("p", "There are no run tables and no readable images.")]


def _sizes(report: Report) -> list[Html]:
    sizes = report.ends.sizes()
    total = sum(sizes.values())
    if not total:
        return []
    longer = np.array([max(size) for size in sizes], np.float64)
    counts = np.array(list(sizes.values()))
    heights, edges = np.histogram(longer, 24, weights=counts)
    chart = charts.histogram(
        edges, heights, across="longer side in pixels", up="images",
        label=f"Longer side of {total:,} embedded images",
    )  # fmt: skip
    common = [(f"{rows:,} x {columns:,}", n) for (rows, columns), n in
              sizes.most_common(_SHOWN_SIZES)]  # fmt: skip
    caption = f"Sizes: the {len(common)} most common of {len(sizes):,}"
    words = f"{total:,} embedded images, before they are resized for the model"
    return [
        tag("div", tag("figure", chart, tag("figcaption", words), class_="wide"),
            _count_table("Rows x columns", common, total, caption), class_="beside")
    ]  # fmt: skip


def _warnings(report: Report) -> list[Html]:
    found, total = report.ends.warnings(), report.ends.count("embedded")
    if not found:
        return []
    rows: list[list[object]] = [
        [tag("code", code), WARNINGS.get(code, ""), f"{n:,}", f"{n / total:.1%}",
         charts.share_bar(n / total)]
        for code, n in found
    ]  # fmt: skip
    return [
        table(f"Warnings among {total:,} embedded images",
              ["Warning", "Meaning", "Images", "Share", ""], rows, numeric=(2, 3))
    ]  # fmt: skip


def _count_table(
    name: str, counts: Sequence[tuple[str, int]], total: int, caption: str = ""
) -> Html:
    rows: list[list[object]] = [
        [value, f"{n:,}", f"{n / total:.1%}", charts.share_bar(n / total)] for value, n in counts
    ]
    heading = name if caption else "Value"
    return table(caption or name, [heading, "Images", "Share", ""], rows, numeric=(1, 2))


def _lengths_and_angles(report: Report) -> list[Html]:
    heights, edges = np.histogram(report.lengths, 40)
    lengths = charts.histogram(
        edges, heights, across="length of the embedding", up="images",
        label=f"Euclidean lengths of {len(report.embeddings):,} embeddings",
    )  # fmt: skip
    low, middle, high = np.percentile(report.lengths, (1, 50, 99))
    words = f"Euclidean norm: median {middle:.4g}, 98 % within {low:.4g} and {high:.4g}"
    figures = [tag("figure", lengths, tag("figcaption", words), class_="wide")]
    plain, centred = report.cosines
    if plain.size:
        heights, edges = np.histogram(centred, 40)
        angles = charts.histogram(
            edges, heights, across="cosine", up="pairs",
            label=f"Cosines of {plain.size:,} random pairs after subtracting the mean",
        )  # fmt: skip
        words = (
            f"{plain.size:,} random pairs, after subtracting the mean of all embeddings. Without "
            f"the subtraction, the median pair has {np.median(plain):.4f}"
        )
        figures.append(tag("figure", angles, tag("figcaption", words), class_="wide"))
    return [tag("div", *figures, class_="beside even")]


def _method(report: Report) -> list[Html]:
    total, closeness = len(report.embeddings), report.closeness
    compared = (
        f"A random sample of {len(closeness.rows):,} embeddings was compared with all {total:,}; "
        "copies that are equal to the last bit were searched among all."
        if closeness.is_sample
        else f"Each of the {total:,} embeddings was compared with all others."
    )
    fitted = report.components.rows
    on = f"a random sample of {fitted:,}" if fitted < total else f"all {total:,}"
    items = [
        f"Pictures and headers: {len(report.looks):,} images were read again. At most "
        f"{report.settings.images:,} of them are a random sample; the others are unusual or "
        "near-duplicates. No header elements with names, dates or places are read. The pictures "
        "show patients and any text burned into the pixels: protect this page as you protect the "
        "images.",
        f"Neighbours: exact cosines after subtracting the mean of all embeddings. {compared}",
        f"Principal components: fitted to {on} embeddings.",
        f"Random samples: seed {report.settings.seed}. The same output gives the same page.",
        "The page loads nothing: its pictures, styles and script are inside it.",
    ]
    return [tag("ul", *(tag("li", item) for item in items))]
