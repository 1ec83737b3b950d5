"""Evaluation of predictions: each metric with its 95 % interval, bootstrapped by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import decision_curve, intervals, metrics, plots, reliability, saved
from cxr_embed.heads.bands import calibration_band, precision_band, roc_band
from cxr_embed.heads.calibration import Calibration
from cxr_embed.heads.delong import delong_test
from cxr_embed.heads.intervals import number
from cxr_embed.heads.operating_points import RATES, Rule, choose_threshold, rates
from cxr_embed.heads.predictions import Predictions

EVALUATION_NAME = "evaluation.json"
TABLE_NAME = "evaluation.csv"
SUBGROUPS_NAME = "subgroups.csv"

TABLE_COLUMNS = (
    "head", "column", "value", "metric", "estimate", "low", "high", "n", "n_positive", "patients",
)  # fmt: skip
FIGURES = ("auroc", "auprc", "brier", "calibration_intercept", "calibration_slope",
           "expected_calibration_error")  # fmt: skip

_BAND_RESAMPLES = 200


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Attributes:
        split: the split to measure on; None is all images.
        tune_split: the split that thresholds are chosen on; None is the measured one.
        rules: the operating points.
        subgroup_columns: names in `Predictions.extras`.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        calibrations: by head, what the probabilities were calibrated by, where that is known.
    """

    split: str | None
    tune_split: str | None
    rules: tuple[Rule, ...]
    subgroup_columns: tuple[str, ...] = ()
    resamples: int = 1000
    seed: int = 0
    calibrations: dict[str, Calibration] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Some images of one head: labels, probabilities and patients, each (n,)."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray

    @property
    def has_both_classes(self) -> bool:
        """Whether there are positives and negatives."""
        return bool(0 < self.labels.sum() < len(self.labels))

    def counts(self) -> dict[str, int]:
        """Returns how many images, positives and patients."""
        return {
            "n": len(self.labels),
            "n_positive": int(self.labels.sum()),
            "patients": len(np.unique(self.groups)),
        }


@dataclass(frozen=True)
class Point:
    """An operating point: its rule, its threshold, and where that was chosen."""

    rule: Rule
    threshold: float
    chosen_on: str


def part_of(predictions: Predictions, head: str, at: np.ndarray) -> Part:
    """Returns some images of a head."""
    labels, scores = predictions.head(head, at)
    return Part(labels, scores, predictions.groups[at])


def evaluate(predictions: Predictions, options: Options) -> dict[str, Any]:
    """Evaluates every head.

    Args:
        predictions: with labels.
        options: of the evaluation.

    Returns:
        The content of evaluation.json: for each head counts, metrics, operating points and
        subgroups.

    Raises:
        UsageError: there is no label, or no operating point can be chosen.
    """
    return {head: _evaluate_head(predictions, head, options) for head in predictions.heads}


def _evaluate_head(predictions: Predictions, head: str, options: Options) -> dict[str, Any]:
    at = predictions.of(head, options.split)
    where = "any split" if options.split is None else f"the split {options.split!r}"
    if not len(at):
        raise UsageError(f"no image of {where} has a label of {head}")
    part = part_of(predictions, head, at)
    points = _choose_points(predictions, head, options, part)
    found: dict[str, Any] = {"split": options.split, **part.counts()}
    found |= estimate_part(part, points, options)
    if head in options.calibrations:
        found["before_calibration"] = reliability.before(
            part.labels, part.scores, part.groups, options.calibrations[head],
            resamples=options.resamples, seed=options.seed,
        )  # fmt: skip
    found["decision_curve"] = decision_curve.as_json(
        decision_curve.curve(part.labels, part.scores, [])
    )
    found["subgroups"] = {
        column: {
            value or "(blank)": {
                **(subgroup := part_of(predictions, head, at[values == value])).counts(),
                **estimate_part(subgroup, points, options),
            }
            for values in [predictions.extras[column][at]]
            for value in sorted(set(values.tolist()))
        }
        for column in options.subgroup_columns
    }
    return found


def _choose_points(
    predictions: Predictions, head: str, options: Options, measured: Part
) -> list[Point]:
    part, name = measured, options.split or "all"
    if options.tune_split is not None:
        part = part_of(predictions, head, predictions.of(head, options.tune_split))
        name = options.tune_split
    points = []
    for rule in options.rules:
        if rule.kind == "threshold":
            points.append(Point(rule, rule.value, "given"))
        elif part.has_both_classes:
            points.append(Point(rule, choose_threshold(rule, part.labels, part.scores), name))
        else:
            counts = part.counts()
            raise UsageError(
                f"no threshold of {head} can be chosen on {name!r}: it has {counts['n_positive']} "
                f"positives among {counts['n']} images; pass --operating_points threshold=0.5"
            )
    return points


def estimate_part(part: Part, points: Sequence[Point], options: Options) -> dict[str, Any]:
    """Returns all metrics of some images with their intervals, ready for JSON.

    Metrics that need both classes are null where there is only one.
    """
    ranking = metrics.Ranking(part.labels, part.scores)

    def figures(weights: np.ndarray | None) -> dict[str, float]:
        intercept, slope = metrics.calibration_line(part.labels, part.scores, weights)
        found = {
            "auroc": ranking.auroc(weights),
            "auprc": ranking.auprc(weights),
            "brier": metrics.brier(part.labels, part.scores, weights),
            "calibration_intercept": intercept,
            "calibration_slope": slope,
            "expected_calibration_error": metrics.expected_calibration_error(
                part.labels, part.scores, weights
            ),
        }
        for at, point in enumerate(points):
            for name, value in rates(part.labels, part.scores, point.threshold, weights).items():
                found[f"{at} {name}"] = value
        return found

    deciding = intervals.deciding_patients(part.labels, part.groups)
    shares = {"auroc": deciding, "auprc": deciding, "brier": part.counts()["patients"]}
    for at, point in enumerate(points):
        called = part.scores >= point.threshold
        of_rates = (part.labels == 1, part.labels == 0, called, ~called)
        shares |= {
            f"{at} {name}": len(np.unique(part.groups[chosen]))
            for name, chosen in zip(RATES, of_rates, strict=True)
        }
    estimates = intervals.bootstrap(figures, part.groups, options.resamples, options.seed, shares)
    found: dict[str, Any] = {name: estimates[name].as_json() for name in FIGURES}
    found["operating_points"] = [
        {
            "rule": str(point.rule),
            "threshold": number(point.threshold),
            "chosen_on": point.chosen_on,
            **{name: estimates[f"{at} {name}"].as_json() for name in RATES},
        }
        for at, point in enumerate(points)
    ]
    return found


def compare(first: Predictions, second: Predictions, head: str, options: Options) -> dict[str, Any]:
    """Compares two heads' AUROCs on the images that both have, labels as the first has them.

    DeLong's test takes images as independent; the bootstrap's interval does not, since it draws
    patients.

    Args:
        first: predictions with labels.
        second: other predictions for the same images; labels are not needed.
        head: in both.
        options: which split, and of the bootstrap.

    Raises:
        UsageError: fewer than two images of a class are in both.
    """
    rows = {name: row for row, name in enumerate(second.image_ids)}
    at = [a for a in first.of(head, options.split).tolist() if first.image_ids[a] in rows]
    part = part_of(first, head, np.array(at, np.int64))
    others = second.probabilities[
        [rows[first.image_ids[a]] for a in at], second.heads.index(head)
    ]  # fmt: skip
    counts = part.counts()
    if counts["n_positive"] < 2 or counts["n"] - counts["n_positive"] < 2:
        raise UsageError(
            f"{head}: the two predictions share {counts['n']} images, {counts['n_positive']} of "
            "them positive; a comparison takes two of each class"
        )
    test = delong_test(part.labels, part.scores, others)
    one, other = (metrics.Ranking(part.labels, scores) for scores in (part.scores, others))
    drawn = intervals.bootstrap(
        lambda weights: {"difference": one.auroc(weights) - other.auroc(weights)},
        part.groups, options.resamples, options.seed,
    )["difference"]  # fmt: skip
    return {
        **counts,
        "auroc": test.first,
        "auroc_other": test.second,
        "difference": test.difference,
        "delong": {
            "low": number(test.low), "high": number(test.high), "z": number(test.z), "p": test.p,
        },
        "bootstrap_by_patient": {"low": number(drawn.low), "high": number(drawn.high)},
    }  # fmt: skip


def table(evaluation: dict[str, Any], subgroups: bool) -> bytes:
    """Returns evaluation.csv or subgroups.csv: one row for each figure of each part."""
    rows = []
    for head, found in evaluation.items():
        parts = [("", "", found)]
        if subgroups:
            parts = [
                (column, value, part)
                for column, values in found["subgroups"].items()
                for value, part in values.items()
            ]
        for column, value, part in parts:
            counts = [part[name] for name in ("n", "n_positive", "patients")]
            for metric, estimate in _flat(part):
                cells = ["" if v is None else repr(v) for v in estimate.values()]
                rows.append([head, column, value, metric, *cells, *counts])
    return saved.csv_bytes(TABLE_COLUMNS, rows)


def _flat(part: dict[str, Any]) -> list[tuple[str, dict[str, float | None]]]:
    found = [(name, part[name]) for name in FIGURES]
    for point in part["operating_points"]:
        found += [(f"{name} at {point['rule']}", point[name]) for name in RATES]
    return found


def pictures(predictions: Predictions, options: Options) -> dict[str, bytes]:
    """Returns the plots, with bands of 95 %, and the table of decision curves, by file name."""
    curves = {}
    shown, bands = {}, {"roc": {}, "pr": {}, "calibration": {}}  # type: ignore[var-annotated]
    for head in predictions.heads:
        part = part_of(predictions, head, predictions.of(head, options.split))
        shown[head] = (part.labels, part.scores)
        resamples = min(options.resamples, _BAND_RESAMPLES)
        drawn = list(intervals.resamples(part.groups, resamples, options.seed))
        curves[head] = decision_curve.curve(part.labels, part.scores, drawn)
        for name, band in (
            ("roc", roc_band), ("pr", precision_band),
            ("calibration", calibration_band),
        ):  # fmt: skip
            ends = band(part.labels, part.scores, drawn)
            if ends is not None:
                bands[name][head] = ends
    title = "all images" if options.split is None else f"{options.split} split"
    return {
        "roc.png": plots.roc(shown, title, bands["roc"]),
        "pr.png": plots.precision_recall(shown, title, bands["pr"]),
        "calibration.png": plots.calibration(
            shown,
            title,
            bands["calibration"],
            reliability.plain_scores(shown, options.calibrations),
        ),
        decision_curve.PLOT_NAME: decision_curve.plot(curves, title),
        decision_curve.TABLE_NAME: decision_curve.table(curves),
    }
