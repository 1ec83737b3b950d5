"""A report as one HTML page: its order, its head, and what is told in words and tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_embed.datasets import charts, report_maps
from cxr_embed.datasets.page import Html, data_block, document, table, tag, theme_button
from cxr_embed.datasets.pictures_on_page import Pictures
from cxr_embed.datasets.report import Report
from cxr_embed.datasets.run_history import Run
from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS, WARNINGS

_SHOWN_RUNS = 12
_SHOWN_FAILURES = 12
_SHOWN_SIZES = 8
_SHOWN_VALUES = 8

_STAGES = {
    "read": "reading files",
    "decode_and_render": "decoding and rendering",
    "fit": "fitting to the model",
    "infer": "the model",
    "write": "writing records",
}


def draw_report(report: Report) -> bytes:
    """Returns the page."""
    pictures = Pictures(report.looks, report.embeddings.ids, report.embeddings.image_ids)
    sections = [
        _section("run", "What ran", *_what_ran(report)),
        _section("outcomes", "What became of each image", *_outcomes(report)),
        _section("pace", "How fast it went", *_pace(report)),
        _section("inputs", "What went in", *_inputs(report)),
        _section("pictures", "What the model saw", *report_maps.wall_of_pictures(report, pictures)),
        _section("space", "The embeddings", *_lengths_and_angles(report)),
        _section("map", "Map", *report_maps.draw_maps(report)),
        _section("duplicates", "Near-duplicates", *report_maps.near_duplicates(report, pictures)),
        _section("oddities", "Images that look wrong", *report_maps.odd_images(report, pictures)),
        _section("method", "How this page was made", *_method(report)),
    ]
    links = [tag("a", title, href=f"#{name}") for name, title, _ in sections]
    contents = tag("nav", *links, aria_label="Contents")
    return document(
        f"Embeddings of {report.settings.input_path}",
        tag("header", _head(report), contents),
        tag("main", *(section for *_, section in sections)),
        data_block("map-data", report_maps.map_data(report, pictures)),
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
    if fastest := _main_run(report.runs):
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


def _main_run(runs: Sequence[Run]) -> Run | None:
    """Returns the run that embedded most images, the last of equals; None where none did."""
    counted = [(int(run.counts.get("embedded") or 0), run) for run in runs]
    best = max(counted, key=lambda item: (item[0], item[1].run_id), default=(0, None))
    return best[1] if best[0] else None


def _what_ran(report: Report) -> list[Html]:
    made_by = [_settings_table(report)] if report.config else [
        tag("p", "There is no _embedding_config.json here, so that nothing tells how these "
            "embeddings were made.", class_="missing")
    ]  # fmt: skip
    if not report.runs:
        return [*made_by, tag("p", "There are no run tables beside these embeddings.")]
    last = report.runs[-1].manifest.get("command")
    command = shlex.join(str(word) for word in last) if isinstance(last, list) else ""
    said = [tag("p", "The last run was started as ", tag("code", command), ".")] if command else []
    return [*made_by, *said, _runs_table(report.runs)]


def _settings_table(report: Report) -> Html:
    made = report.config.fingerprint if report.config else {}
    model = next(
        (r.manifest.get("model_path") for r in reversed(report.runs)
         if r.fingerprint.get("model_sha256") == made.get("model_sha256")), None,
    )  # fmt: skip
    decoders = made.get("decoders")
    rows: list[list[object]] = [
        ["Model", tag("code", model or "not recorded")],
        ["Its content, SHA-256", tag("code", made.get("model_sha256"))],
        ["Model config", _model_config(made.get("model_config"))],
        ["Rendering", made.get("rendering")],
        ["Engine", f"{made.get('engine')} {made.get('engine_version')}, {made.get('precision')}"],
        ["Resizing", made.get("resize")],
        ["Preprocessing", f"version {made.get('preprocessing_version')}"],
    ]
    if isinstance(decoders, dict):
        words = ", ".join(f"{name} {version}" for name, version in decoders.items())
        rows.append(["Decoders", words])
    return table("What decided the numbers", ["Setting", "Value"], rows, class_="settings")


def _model_config(config: Any) -> object:
    return tag("code", config) if config else "none: inferred from the model's signature"


def _runs_table(runs: Sequence[Run]) -> Html:
    rows: list[list[object]] = []
    for run in runs[-_SHOWN_RUNS:]:
        counts, manifest = run.counts, run.manifest
        rows.append([
            f"{run.started:%Y-%m-%d %H:%M:%S}" if run.started else run.run_id,
            manifest.get("device", "no manifest"),
            *(_whole(counts.get(key)) for key in ("found", "embedded", "already_there")),
            *(_whole(sum((counts.get(key) or {}).values())) for key in ("skipped", "failed")),
            f"{float(manifest.get('images_per_second') or 0):,.2f}",
        ])  # fmt: skip
    more = len(runs) - len(rows)
    caption = f"The last {len(rows)} of {len(runs)} runs" if more else "Runs, the oldest first"
    return table(
        caption,
        ["Started (UTC)", "Device", "Found", "Embedded", "Already there", "Skipped", "Failed",
         "Images/s"],
        rows, numeric=(2, 3, 4, 5, 6, 7),
    )  # fmt: skip


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _outcomes(report: Report) -> list[Html]:
    ends, total = report.ends, len(report.ends.by_path)
    if not total:
        return [tag("p", "No run table names an image.")]
    rows = [_outcome("embedded", "", "", "the record stands", ends.count("embedded"), total)]
    for reason, number in ends.reasons("skipped"):
        meaning = SKIP_REASONS.get(reason, "")
        rows.append(_outcome("skipped", "", reason, meaning, number, total))
    for reason, number in ends.reasons("failed"):
        known = FAILURE_REASONS.get(reason)
        stage, meaning = (known.stage, known.meaning) if known else ("", "")
        rows.append(_outcome("failed", stage, reason, meaning, number, total))
    said = [
        tag("p", f"Of {total:,} images, how each ended in the last run that walked it."),
        table("Outcomes", ["Outcome", "Stage", "Reason", "Meaning", "Images", "Share", ""], rows,
              numeric=(4, 5)),
    ]  # fmt: skip
    unnamed = len(report.embeddings) - ends.count("embedded")
    if unnamed > 0:
        said.append(
            tag("p", f"{unnamed:,} more records stand here than the tables name: a run that was "
                "killed leaves records but no tables.")
        )  # fmt: skip
    return [*said, *_failures(report)]


def _outcome(kind: str, stage: str, reason: str, meaning: str, number: int, total: int) -> list[Any]:
    share = number / total
    code = tag("code", reason) if reason else ""
    return [kind, stage, code, meaning, f"{number:,}", f"{share:.1%}", charts.share_bar(share)]


def _failures(report: Report) -> list[Html]:
    failed = [(path, e) for path, e in sorted(report.ends.by_path.items()) if e.kind == "failed"]
    if not failed:
        return []
    rows: list[list[object]] = [
        [tag("code", path), tag("code", end.reason), end.detail]
        for path, end in failed[:_SHOWN_FAILURES]
    ]
    caption = "Images that failed"
    if len(failed) > len(rows):
        caption = f"The first {len(rows)} of {len(failed):,} images that failed; all of them are in "
        caption += "the failures.csv of the runs"
    return [table(caption, ["Image", "Reason", "Detail"], rows, class_="paths")]


def _pace(report: Report) -> list[Html]:
    run = _main_run(report.runs)
    if run is None:
        return [tag("p", "No run's manifest is here.")]
    said: list[Html] = []
    for pace in report.paces:
        width = float(pace.edges[1] - pace.edges[0])
        chart = charts.histogram(
            pace.edges, pace.counts / width, across="seconds since the run began",
            up="records/s",
            label=f"Records written a second, over the {pace.edges[-1]:.0f} seconds of one run",
        )  # fmt: skip
        words = f"Run {pace.run_id}: records written a second, in steps of {width:.3g} s"
        said.append(tag("figure", chart, tag("figcaption", words), class_="wide"))
    if said:
        said.append(
            tag("p", "From the times at which the records were written, failed images left aside. "
                "A run begins with loading its model.", class_="dim")
        )  # fmt: skip
    else:
        said.append(
            tag("p", "When each image was done is not recorded, and the times of the records no "
                "longer tell (they were copied, packed, or lie in a bucket), so that there are "
                "only whole runs' figures.")
        )  # fmt: skip
    return [*said, *_stages(run)]


def _stages(run: Run) -> list[Html]:
    seconds = run.manifest.get("seconds")
    if not isinstance(seconds, dict):
        return []
    spent = {name: float(seconds[name]) for name in _STAGES if seconds.get(name)}
    total = sum(spent.values()) or 1.0
    rows: list[list[object]] = [
        [_STAGES[name], f"{value:,.1f}", f"{value / total:.0%}", charts.share_bar(value / total)]
        for name, value in spent.items()
    ]
    wall = float(seconds.get("wall") or 0)
    load = float(seconds.get("model_load") or 0)
    megabytes = float(run.manifest.get("bytes_read") or 0) / 1e6
    words = (
        f"Run {run.run_id}: {_whole(run.counts.get('embedded'))} images in {wall:,.1f} s, the model "
        f"loaded in {load:.1f} s before; {megabytes:,.0f} MB read; batches of "
        f"{run.manifest.get('batch_size')}, {run.manifest.get('threads')} threads."
    )
    return [
        tag("p", words),
        table("Where its time went, seconds added up over threads",
              ["Stage", "Seconds", "Share", ""], rows, numeric=(1, 2)),
    ]  # fmt: skip


def _inputs(report: Report) -> list[Html]:
    said = [*_sizes(report), *_warnings(report)]
    if report.headers:
        looked = max(sum(n for _, n in values) for values in report.headers.values())
        said.append(
            tag("p", f"From the headers of a random sample of {looked:,} images. Text is shown only "
                "where it is a term that the standard defines.")
        )  # fmt: skip
        tables = [
            _count_table(name, [(value, number) for value, number in values[:_SHOWN_VALUES]],
                         sum(number for _, number in values))
            for name, values in report.headers.items()
        ]  # fmt: skip
        said.append(tag("div", *tables, class_="columns"))
    return said or [tag("p", "Neither tables nor images are here to tell.")]


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
    common = [(f"{rows:,} × {columns:,}", n) for (rows, columns), n in
              sizes.most_common(_SHOWN_SIZES)]  # fmt: skip
    caption = f"Sizes: the {len(common)} most common of {len(sizes):,}"
    words = f"Longer side of {total:,} embedded images, before they are fitted to the model"
    return [
        tag("div", tag("figure", chart, tag("figcaption", words), class_="wide"),
            _count_table("Rows × columns", common, total, caption), class_="beside")
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
    return table(caption or name, [name, "Images", "Share", ""], rows, numeric=(1, 2))


def _lengths_and_angles(report: Report) -> list[Html]:
    heights, edges = np.histogram(report.lengths, 40)
    lengths = charts.histogram(
        edges, heights, across="length of the embedding", up="images",
        label=f"Euclidean lengths of {len(report.embeddings):,} embeddings",
    )  # fmt: skip
    low, middle, high = np.percentile(report.lengths, (1, 50, 99))
    words = f"Euclidean lengths (norms): median {middle:.4g}, 98 % within {low:.4g} and {high:.4g}"
    figures = [tag("figure", lengths, tag("figcaption", words), class_="wide")]
    plain, centred = report.cosines
    if plain.size:
        heights, edges = np.histogram(centred, 40)
        angles = charts.histogram(
            edges, heights, across="cosine", up="pairs",
            label=f"Cosines of {plain.size:,} random pairs around the mean",
        )  # fmt: skip
        words = (
            f"Cosines of {plain.size:,} random pairs, their common mean taken off first. With it, "
            f"the median pair has {np.median(plain):.4f}"
        )
        figures.append(tag("figure", angles, tag("figcaption", words), class_="wide"))
    return [tag("div", *figures, class_="beside even")]


def _method(report: Report) -> list[Html]:
    total, closeness = len(report.embeddings), report.closeness
    compared = (
        f"A random sample of {len(closeness.rows):,} embeddings was compared with all {total:,}; "
        "copies that are the same to the last bit were looked for among all."
        if closeness.is_sample
        else f"Each of the {total:,} embeddings was compared with all others."
    )
    fitted = report.components.rows
    on = f"a random sample of {fitted:,}" if fitted < total else f"all {total:,}"
    items = [
        f"Pictures and headers: {len(report.looks):,} images were read again, at most "
        f"{report.settings.images:,} of them by chance, the others because they stand out. Nothing "
        "is read of a header that tells who, when or where, but a picture is a patient's, with all "
        "that was burned into it: keep this page as you keep the images.",
        f"Neighbours: exact cosines, the mean of all embeddings taken off first. {compared}",
        f"Principal components: fitted to {on} embeddings.",
        f"Chance: seed {report.settings.seed}. The same output gives the same page.",
        "The page asks for nothing: its pictures, styles and script are inside it.",
    ]
    return [tag("ul", *(tag("li", item) for item in items))]
