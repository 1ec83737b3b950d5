"""Draws the runs of a report: settings, outcome of each image, and speed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS
from cxr_embed.report import charts
from cxr_embed.report.content import Report
from cxr_embed.report.page import Html, table, tag
from cxr_embed.runs.history import Run

_SHOWN_RUNS = 12
_SHOWN_FAILURES = 12

_STAGES = {
    "read": "reading files",
    "decode_and_render": "decoding and rendering",
    "fit": "fitting to the model",
    "infer": "the model",
    "write": "writing records",
}


def main_run(runs: Sequence[Run]) -> Run | None:
    """Returns the run that embedded the most images, the latest of equals; None if none did."""
    counted = [(int(run.counts.get("embedded") or 0), run) for run in runs]
    best = max(counted, key=lambda item: (item[0], item[1].run_id), default=(0, None))
    return best[1] if best[0] else None


def what_ran(report: Report) -> list[Html]:
    """Returns the settings of the embeddings, and the table of runs."""
    made_by = [_settings_table(report)] if report.config else [
        tag("p", "There is no _embedding_config.json, so it is unknown how these embeddings were "
            "made.", class_="missing")
    ]  # fmt: skip
    if not report.runs:
        return [*made_by, tag("p", "There are no run tables beside these embeddings.")]
    last = report.runs[-1].manifest.get("command")
    command = shlex.join(str(word) for word in last) if isinstance(last, list) else ""
    last_run = [tag("p", "Command of the last run: ", tag("code", command))] if command else []
    return [*made_by, *last_run, _runs_table(report.runs)]


def _settings_table(report: Report) -> Html:
    made = report.config.fingerprint if report.config else {}
    model = next(
        (r.manifest.get("model_path") for r in reversed(report.runs)
         if r.fingerprint.get("model_sha256") == made.get("model_sha256")), None,
    )  # fmt: skip
    decoders = made.get("decoders")
    rows: list[list[object]] = [
        ["Model", tag("code", model or "not recorded")],
        ["Model, SHA-256", tag("code", made.get("model_sha256"))],
        ["Model config", _model_config(made.get("model_config"))],
        ["Rendering", made.get("rendering")],
        ["Engine", f"{made.get('engine')} {made.get('engine_version')}, {made.get('precision')}"],
        ["Resizing", made.get("resize")],
        ["Preprocessing", f"version {made.get('preprocessing_version')}"],
    ]
    if isinstance(decoders, dict):
        words = ", ".join(f"{name} {version}" for name, version in decoders.items())
        rows.append(["Decoders", words])
    return table("Settings of the embeddings", ["Setting", "Value"], rows, class_="settings")


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


def outcomes(report: Report) -> list[Html]:
    """Returns the latest outcomes of all images, with reasons."""
    ends, total = report.ends, len(report.ends.by_path)
    if not total:
        return [tag("p", "The run tables contain no image.")]
    rows = [_outcome(("embedded", "", "", "a record was written"), ends.count("embedded"), total)]
    for reason, number in ends.reasons("skipped"):
        meaning = SKIP_REASONS.get(reason, "")
        rows.append(_outcome(("skipped", "", reason, meaning), number, total))
    for reason, number in ends.reasons("failed"):
        known = FAILURE_REASONS.get(reason)
        stage, meaning = (known.stage, known.meaning) if known else ("", "")
        rows.append(_outcome(("failed", stage, reason, meaning), number, total))
    parts = [
        tag("p", f"Latest outcome of each of {total:,} images."),
        table("Outcomes", ["Outcome", "Stage", "Reason", "Meaning", "Images", "Share", ""], rows,
              numeric=(4, 5)),
    ]  # fmt: skip
    unnamed = len(report.embeddings) - ends.count("embedded")
    if unnamed > 0:
        parts.append(
            tag("p", f"The output has {unnamed:,} more records than the tables: a killed run may "
                "leave records without table rows.")
        )  # fmt: skip
    return [*parts, *_failures(report)]


def _outcome(words: tuple[str, str, str, str], number: int, total: int) -> list[Any]:
    kind, stage, reason, meaning = words
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
        caption = (
            f"The first {len(rows)} of {len(failed):,} images that failed; failures.csv has all"
        )
    return [table(caption, ["Image", "Reason", "Detail"], rows, class_="paths")]


def pace(report: Report) -> list[Html]:
    """Returns the speed of runs over time, and the time of each stage."""
    run = main_run(report.runs)
    if run is None:
        return [tag("p", "There is no manifest of a run.")]
    figures, parts = [], []
    for pace in report.paces:
        width = float(pace.edges[1] - pace.edges[0])
        chart = charts.histogram(
            pace.edges, pace.counts / width, across="seconds since the run's start",
            up="records/s",
            label=f"Records written per second, over the {pace.edges[-1]:.0f} seconds of one run",
        )  # fmt: skip
        words = f"Run {pace.run_id}, in steps of {width:.3g} s"
        figures.append(tag("figure", chart, tag("figcaption", words), class_="wide"))
    if figures:
        parts.append(tag("div", *figures, class_="beside even"))
        parts.append(
            tag("p", "Computed from the modification times of the records, without failed images. "
                "A run starts with loading its model.", class_="dim")
        )  # fmt: skip
    else:
        parts.append(
            tag("p", "The speed over time is not available: it is computed from the modification "
                "times of the records, which were copied, packed, or are in a bucket.")
        )  # fmt: skip
    return [*parts, *_stages(run)]


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
        f"Run {run.run_id}: {_whole(run.counts.get('embedded'))} images in {wall:,.1f} s, after "
        f"{load:.1f} s to load the model; {megabytes:,.0f} MB read"
    )
    # Runs of earlier versions lack some of these.
    if batch_size := run.manifest.get("batch_size"):
        words += f"; batch size {batch_size}"
    if threads := run.manifest.get("decode_threads"):
        words += f"; {threads} decoding threads"
    return [
        tag("p", f"{words}."),
        table("Time of each stage, summed over threads",
              ["Stage", "Seconds", "Share", ""], rows, numeric=(1, 2)),
    ]  # fmt: skip
