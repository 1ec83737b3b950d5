"""The figures of an evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cxr_embed.heads.evaluation import FIGURES
from cxr_embed.heads.operating_points import RATES


def lines(evaluation: dict[str, Any]) -> Iterator[str]:
    """Yields the metrics as lines of text."""
    for head, found in evaluation.items():
        where = "all images" if found["split"] is None else f"split {found['split']}"
        yield (
            f"{head}, {where}: {found['n']} images, {found['n_positive']} positive, "
            f"{found['patients']} patients"
        )
        for name in FIGURES:
            before = found.get("before_calibration", {}).get(name)
            note = f"; before calibration {text_of(before)}" if before else ""
            yield f"  {name.replace('_', ' '):<28} {text_of(found[name])}{note}"
        best = found["decision_curve"]
        yield (
            "  no threshold at which acting on it is better than on all or on none"
            if best["best_from"] is None
            else f"  acting on it is better than on all or on none at thresholds from "
            f"{best['best_from']:g} to {best['best_to']:g}"
        )
        for point in found["operating_points"]:
            threshold = "none" if point["threshold"] is None else f"{point['threshold']:.4f}"
            yield f"  {point['rule']}: threshold {threshold}, chosen on {point['chosen_on']}"
            for name in RATES:
                yield f"    {name:<26} {text_of(point[name])}"
        for column, values in found["subgroups"].items():
            yield f"  AUROC by {column}"
            for value, part in values.items():
                yield f"    {value:<26} {text_of(part['auroc'])}, {part['n']} images"
        if "comparison" in found:
            yield from _comparison_lines(found["comparison"])


def _comparison_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"  compared on {found['n']} images, {found['patients']} patients"
    yield f"    AUROC {found['auroc']:.3f} against {found['auroc_other']:.3f}"
    for name, title in (("delong", "DeLong"), ("bootstrap_by_patient", "bootstrap by patient")):
        estimate = {"value": found["difference"], **found[name]}
        p = f", p = {found[name]['p']:.3g}" if "p" in found[name] else ""
        yield f"    difference, {title}: {text_of(estimate)}{p}"


def text_of(estimate: dict[str, float | None]) -> str:
    """Returns `0.873 (0.851 to 0.893)`."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "not defined"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
