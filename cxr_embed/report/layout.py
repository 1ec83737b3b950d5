"""Draws a report as one HTML page: prepares the data that its template needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS, WARNINGS
from cxr_embed.report.charts import MAP_EDGE, Histogram, histogram, place
from cxr_embed.report.colouring import NO_VALUE
from cxr_embed.report.content import (
    SHOWN_FARTHEST,
    SHOWN_GROUPS,
    SHOWN_ODDITIES,
    SHOWN_OF_GROUP,
    Report,
)
from cxr_embed.report.oddities import LEAST_PICTURES, ODDITIES
from cxr_embed.report.page import render
from cxr_embed.report.space import Space
from cxr_embed.report.thumbnails import NOT_LOOKED_AT, Picture

_SHOWN_SIZES = 8

_STAGES = {
    "read": "reading files",
    "decode_and_render": "decoding and rendering",
    "fit": "fitting to the model",
    "infer": "the model",
    "write": "writing records",
}


def draw_report(report: Report) -> bytes:
    """Returns the page."""
    return render(
        "report/templates/report.html.j2",
        report=report,
        embeddings=report.embeddings,
        source=report.source,
        ends=report.source.ends,
        space=report.space,
        **_runs(report),
        **_inputs(report),
        **_maps(report),
        **(_space(report, report.space) | _pictures(report, report.space) if report.space else {}),
    )


def _runs(report: Report) -> dict[str, Any]:
    ends, run = report.source.ends, report.main_run
    skipped = {code: ("", meaning) for code, meaning in SKIP_REASONS.items()}
    return {
        "settings": _settings(report),
        "reasons_of": [("skipped", skipped), ("failed", FAILURE_REASONS)],
        "failures": [item for item in sorted(ends.by_path.items()) if item[1].kind == "failed"],
        "pace_charts": [
            (pace, histogram(
                pace.edges, pace.counts / pace.step, across="seconds since the run's start",
                up="records/s",
                label=f"Records per second, over the {pace.edges[-1]:.0f} seconds of one run",
            ))
            for pace in report.paces
        ],
        "stages": [
            (words, seconds) for stage, words in _STAGES.items()
            if run and (seconds := run.number("seconds", stage))
        ],
    }  # fmt: skip


def _settings(report: Report) -> list[tuple[str, object, bool]]:
    """Returns name, value and whether the value is code; empty if the settings are unknown."""
    if report.source.config is None:
        return []
    made = report.source.config.fingerprint
    sha256 = made.get("model_sha256")
    model = next(
        (r.manifest.get("model_path") for r in reversed(report.source.runs)
         if r.fingerprint.get("model_sha256") == sha256), None,
    )  # fmt: skip
    config, decoders = made.get("model_config"), made.get("decoders")
    settings = [
        ("Model", model or "not recorded", True),
        ("Model, SHA-256", sha256, True),
        ("Model config", config or "none: inferred from the model's signature", bool(config)),
        ("Rendering", made.get("rendering"), False),
        ("Engine", f"{made.get('engine')} {made.get('engine_version')}, {made.get('precision')}",
         False),
        ("Resizing", made.get("resize"), False),
        ("Preprocessing", f"version {made.get('preprocessing_version')}", False),
    ]  # fmt: skip
    if isinstance(decoders, dict):
        words = ", ".join(f"{name} {version}" for name, version in decoders.items())
        settings.append(("Decoders", words, False))
    return settings


def _inputs(report: Report) -> dict[str, Any]:
    sizes = report.source.ends.sizes()
    longer = np.array([max(size) for size in sizes], np.float64)
    return {
        "warnings": WARNINGS,
        "headers_read": max((sum(n for _, n in v) for v in report.headers.values()), default=0),
        "sizes": sizes,
        "common_sizes": [
            (f"{rows:,} x {columns:,}", n) for (rows, columns), n in sizes.most_common(_SHOWN_SIZES)
        ],
        "size_chart": _histogram_of(
            longer, 24, list(sizes.values()), across="longer side in pixels", up="images",
            label=f"Longer side of {sizes.total():,} embedded images",
        ) if sizes else None,
    }  # fmt: skip


def _space(report: Report, space: Space) -> dict[str, Any]:
    plain, centred = space.cosines
    return {
        "lengths": np.percentile(space.lengths, (1, 50, 99)),
        "length_chart": _histogram_of(
            space.lengths, across="length of the embedding", up="images",
            label=f"Euclidean lengths of {len(report.embeddings):,} embeddings",
        ),
        "median_cosine": np.median(plain) if plain.size else None,
        "cosine_chart": _histogram_of(
            centred, across="cosine", up="pairs",
            label=f"Cosines of {plain.size:,} random pairs after subtracting the mean",
        ) if plain.size else None,
    }  # fmt: skip


def _histogram_of(
    values: np.ndarray, bins: int = 40, weights: Any = None, **words: str
) -> Histogram:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    # Values that differ by rounding only cannot be divided into bins.
    is_one_value = high - low <= 1e-5 * max(abs(low), abs(high), 1e-6)
    limits = (low - 0.5, high + 0.5) if is_one_value else None
    heights, edges = np.histogram(values, bins, limits, weights=weights)
    return histogram(edges, heights, **words)


def _maps(report: Report) -> dict[str, Any]:
    embeddings = report.embeddings
    return {
        "place": place,
        "map_edge": MAP_EDGE,
        "no_value": NO_VALUE,
        # For the page's script.
        "map_data": {
            "points": [
                [embeddings.ids[row], embeddings.image_ids[row], row,
                 look.problem.replace("_", " ") if (look := report.looks.get(row)) else ""]
                for row in report.plotted
            ],
            "columns": [
                {"name": c.name, "ordered": c.is_ordered, "groups": c.groups, "codes": c.codes,
                 "without": c.without}
                for c in report.colourings
            ],
            "noValue": NO_VALUE,
        },
    }  # fmt: skip


def _pictures(report: Report, space: Space) -> dict[str, Any]:
    embeddings, similarities = report.embeddings, space.closeness.mean_similarities
    order = list(ODDITIES)
    odd = sorted(report.oddities.items(), key=lambda item: (order.index(item[1][0]), item))

    def picture(row: int) -> Picture:
        look = report.looks.get(row, NOT_LOOKED_AT)
        return Picture(row, embeddings.ids[row], embeddings.image_ids[row], look)

    similarity_of = dict(zip(space.closeness.rows.tolist(), similarities.tolist(), strict=True))
    return {
        "pictures": [picture(row) for row in sorted(report.looks)],
        "seen": sum(look.picture is not None for look in report.looks.values()),
        "least_pictures": LEAST_PICTURES,
        "groups": [
            (group, [(picture(row), ()) for row in group.rows[:SHOWN_OF_GROUP]])
            for group in space.groups[:SHOWN_GROUPS]
        ],
        "odd": [
            (picture(row), [f"{code.replace('_', ' by ')}?" for code in codes])
            for row, codes in odd[:SHOWN_ODDITIES]
        ],
        "oddities_met": {code: ODDITIES[code] for _, codes in odd for code in codes},
        "median_similarity": sorted(similarities)[len(similarities) // 2],
        "farthest": [
            (picture(row), [f"{similarity_of[row]:.3f}"])
            for row in space.farthest(SHOWN_FARTHEST) if len(similarities) > 1
        ],
    }  # fmt: skip
