"""`cxr-embed evaluate`: how good predictions are, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import head_flags, neighbour_flags
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.cli.terminal import Log
    from cxr_embed.heads.evaluation import Options
    from cxr_embed.heads.predictions import Predictions

USAGE = """\
Measures predictions: AUROC, average precision, Brier score, calibration, and sensitivity and
specificity at operating points, each with a 95 % interval bootstrapped by patient.

  cxr-embed evaluate --predictions DIR_OR_CSV --output_path DIR [flags]
  cxr-embed evaluate --head DIR --input_path EMBEDDINGS --labels_csv CSV --output_path DIR [flags]
  cxr-embed evaluate --neighbours --input_path EMBEDDINGS --labels_csv CSV --output_path DIR [flags]

Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()

    values.text("predictions", "a predictions.csv, or the folder of a training run that holds one")
    values.text(
        "head", "in place of --predictions: a trained head, which is applied to --input_path"
    )
    head_flags.define_embeddings(values, "input_path")
    head_flags.define_labels(values, with_heads=False)
    values.text(
        "split_name",
        "the split to measure on; by default test, or all images if there are no splits",
    )
    values.text(
        "tune_split_name",
        "the split to choose thresholds on; by default tune or validate, else the measured split",
    )
    values.text(
        "operating_points",
        "how to choose thresholds: youden, sensitivity=S, specificity=S, threshold=T",
        default="youden,sensitivity=0.9,specificity=0.9",
    )
    values.repeatable("subgroup_column",
        "also measure each value of this column of the labels separately; may be repeated",
    )  # fmt: skip
    values.text(
        "compare_to", "other predictions for the same images, to compare with DeLong's test"
    )
    values.number(
        "num_bootstrap", 1000, "resamples of the bootstrap; 0 gives no intervals", least=0
    )
    values.number("seed", 0, "seed of the bootstrap", least=0)
    values.switch(
        "allow_other_embeddings",
        "accept embeddings that were made with other settings than those of the training",
    )
    neighbour_flags.define(values)
    head_flags.define_output(values, "nothing is written")
    return values


def main(arguments: list[str]) -> int:
    """Evaluates predictions; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    has_predictions = bool(values.predictions or values.head)
    if (values.predictions and values.head) or not (has_predictions or values.neighbours):
        raise UsageError("pass one of --predictions and --head, or --neighbours")
    output = head_flags.one_of(values, "output_dir", "output_path")

    from cxr_embed.cli import terminal
    from cxr_embed.heads import agreement, agreement_files, evaluation, saved

    log = terminal.Log()
    if output:
        saved.require_free(output, values.overwrite, "--output_dir")
    result: dict[str, dict[str, Any]] = {}
    files: dict[str, bytes] = {}
    if has_predictions:
        result, files = _evaluate(values, log)
    if values.neighbours:
        found = neighbour_flags.measure(values, tuple(result), log)
        for one in found:
            result.setdefault(one.head, {})["neighbours"] = one.as_json()
        print("\n".join(agreement.lines(found)))
        files |= {
            agreement_files.TABLE_NAME: agreement_files.table(found),
            agreement_files.PLOT_NAME: agreement_files.plot(found),
        }
    if output:
        files |= {
            "command.txt": f"{head_flags.command_of('evaluate', arguments)}\n".encode(),
            evaluation.EVALUATION_NAME: saved.to_json(result),
        }
        saved.require_free(output, values.overwrite, "--output_dir", [evaluation.EVALUATION_NAME])
        saved.write_files(output, files)
        print(f"{output} holds the figures and plots")
    return 0


def _evaluate(
    values: cli_flags.FlagSet, log: Log
) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """Evaluates predictions and prints the figures; returns them by head, and files by name."""
    from cxr_embed.heads import evaluation, evaluation_lines, operating_points, predictions

    rules = tuple(
        operating_points.parse_rule(text) for text in values.operating_points.split(",") if text
    )
    found = _predictions(values, log)
    options = _options(values, found, rules, log)
    result = evaluation.evaluate(found, options)
    if values.compare_to:
        other = predictions.read_predictions(values.compare_to, "--compare_to")
        shared = [head for head in found.heads if head in other.heads]
        if not shared:
            raise UsageError(
                f"--compare_to {values.compare_to} has {', '.join(other.heads)}, none of "
                f"{', '.join(found.heads)}"
            )
        for head in shared:
            result[head]["comparison"] = evaluation.compare(found, other, head, options)
    for line in evaluation_lines.lines(result):
        print(line)
    files = {evaluation.TABLE_NAME: evaluation.table(result, subgroups=False)}
    if options.subgroup_columns:
        files[evaluation.SUBGROUPS_NAME] = evaluation.table(result, subgroups=True)
    return result, {**files, **evaluation.pictures(found, options)}


def _predictions(values: cli_flags.FlagSet, log: Log) -> Predictions:
    """Reads or computes predictions and adds the labels' columns."""
    from cxr_embed.heads import applying, mapped, predictions, saved

    if values.predictions:
        if (values.input_path or values.data_dir) and not values.neighbours:
            raise UsageError("--input_path goes with --head, not with --predictions")
        found = predictions.read_predictions(values.predictions)
    else:
        head = saved.read_head(values.head)
        embeddings = mapped.open_embeddings(
            head_flags.embeddings_paths(values), log, mixed_settings=values.mixed_settings
        )
        found = applying.apply(
            values.head, head, embeddings, allow_others=values.allow_other_embeddings, log=log
        )
    extras = tuple(dict.fromkeys(values.subgroup_column or []))
    if values.labels_csv or values.mimic_dir:
        heads = found.heads if found.labels is None else ()
        table = head_flags.read_labels(values, heads, extras, needs_split=False)
        joined = predictions.attach(found, table)
        if joined.unmatched:
            log(
                f"warning: labels of images that have no prediction: {len(joined.unmatched)}, such "
                f"as {joined.unmatched[0][1]}"
            )
        if joined.unlabelled:
            log(f"predictions that no label names: {joined.unlabelled}")
    elif extras:
        raise UsageError("--subgroup_column is a column of the labels: pass --labels_csv, too")
    if found.sources is not None:
        found.extras["source"] = found.sources
    if found.labels is None:
        raise UsageError("there are no labels to measure against: pass --labels_csv")
    return found


def _options(values: cli_flags.FlagSet, found: Predictions, rules: Any, log: Log) -> Options:
    """Returns what to measure, with the splits that there are."""
    from cxr_embed.heads import reliability, saved
    from cxr_embed.heads.evaluation import Options

    there = sorted({split for split in found.splits.tolist() if split})
    split = values.split_name or ("test" if "test" in there else None)
    if (split is None and there) or (split and split not in there):
        raise UsageError(
            f"--split_name {values.split_name or 'is missing'}: the predictions have "
            f"{', '.join(there) or 'no splits'}"
        )
    names = [values.tune_split_name] if values.tune_split_name else ["tune", "validate"]
    tune = next((name for name in names if name in there), None)
    if values.tune_split_name and tune is None:
        raise UsageError(
            f"--tune_split_name {values.tune_split_name}: the predictions have "
            f"{', '.join(there) or 'no splits'}"
        )
    if tune is None and any(rule.kind != "threshold" for rule in rules):
        log("warning: thresholds are chosen on the images that they are measured on")
    columns = [*(values.subgroup_column or []), *(["source"] if "source" in found.extras else [])]
    return Options(
        split, tune, rules, tuple(dict.fromkeys(columns)),
        values.num_bootstrap, values.seed,
        reliability.read_calibrations(
            values.head or values.predictions.removesuffix(f"/{saved.PREDICTIONS_NAME}"),
            found.heads,
        ),
    )  # fmt: skip
