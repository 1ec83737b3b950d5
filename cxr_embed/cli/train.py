"""`cxr-embed train` and `python -m train`: a small classifier on top of embeddings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from absl import flags

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import head_flags
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.heads.network import NetworkSettings

USAGE = """\
Trains a head: a small network on top of embeddings, for one label or several.

  python -m train --labels_csv CSV --head_name NAME --data_dir EMBEDDINGS [flags]

Writes model.keras, head.json, metrics.json, predictions.csv and plots to --output_dir.
Exit status: 0 done; 2 wrong flags or input; 3 broke."""


def make_flags() -> flags.FlagValues:
    """Returns the verb's flags, unparsed."""
    values = flags.FlagValues()
    flags.DEFINE_string("train_split_name", "train", "the split to learn from", flag_values=values)
    flags.DEFINE_string(
        "tune_split_name", None,
        "the split that says when to stop; tune, with --mimic_dir validate",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "test_split_name", None, "a split that is only measured on", flag_values=values
    )
    head_flags.define_labels(values)
    head_flags.define_embeddings(values)
    flags.DEFINE_string(
        "hidden_layer_sizes", "512,256",
        "units of the hidden layers; empty makes a linear probe, the linear part alone",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "num_epochs", 100, "passes over the training images, at most", lower_bound=1,
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "patience", 10, "stop after so many epochs without a lower loss on the tune split",
        lower_bound=1, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "batch_size", 0, "images a step; 0 is a sixteenth of the training images, from 16 to 512",
        lower_bound=0, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_float("learning_rate", 0.001, "Adam's", lower_bound=0.0, flag_values=values)
    flags.DEFINE_enum(
        "class_weights", "none", ["none", "balanced"],
        "balanced: both classes of a head weigh the same, which spoils the calibration",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "calibrate", True, "scale and shift the logits to fit the tune split; changes no AUROC",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "seed", 0, "of weights and order; the same seed gives the same head", lower_bound=0,
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "allow_shared_patients", False, "let a patient have images in several splits",
        flag_values=values,
    )  # fmt: skip
    head_flags.define_output(values, "heads/<head names>")
    return values


def main(arguments: list[str]) -> int:
    """Trains a head; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    heads = head_flags.head_names(values)
    if not heads:
        raise UsageError("--head_name is missing: the column of --labels_csv to learn")
    sources = head_flags.embeddings_paths(values)
    settings = _settings(values)
    output = head_flags.one_of(values, "output_dir", "output_path") or default_output(heads)

    from cxr_embed.cli import terminal
    from cxr_embed.heads import mapped, saved, training

    log = terminal.Log()
    splits = training.Splits(
        values.train_split_name, head_flags.tune_split(values), values.test_split_name or None
    )
    if len(splits.names()) != (3 if splits.test else 2):
        raise UsageError("the splits to train on, tune on and test on must have different names")
    saved.require_free(output, values.overwrite, "--output_dir")
    table = head_flags.read_labels(values, heads)
    embeddings = mapped.open_embeddings(sources, log, mixed_settings=values.mixed_settings)
    trained = training.train(
        embeddings, table, splits, settings,
        command=head_flags.command_of("train", arguments), log=log,
        allow_shared_patients=values.allow_shared_patients,
    )  # fmt: skip
    saved.require_free(output, values.overwrite, "--output_dir", [saved.HEAD_NAME])
    saved.write_files(output, trained.files)
    _print_summary(trained.metrics, heads, splits.names(), output)
    return 0


def _settings(values: flags.FlagValues) -> NetworkSettings:
    if not values.learning_rate:
        raise UsageError("--learning_rate must be above 0")
    if values.batch_size == 1:
        raise UsageError("--batch_size 1: batch norm needs 2 images or more")
    from cxr_embed.heads.network import NetworkSettings

    return NetworkSettings(
        head_flags.layer_sizes(values), values.num_epochs, values.batch_size,
        values.learning_rate, values.patience,
        values.seed, values.class_weights, calibrate=values.calibrate,
    )  # fmt: skip


def default_output(heads: tuple[str, ...]) -> str:
    """Returns the default of --output_dir."""
    return "heads/" + "+".join(re.sub(r"[^\w.-]+", "_", head) for head in heads)[:100]


def _print_summary(
    metrics: dict[str, dict[str, dict[str, float]]],
    heads: tuple[str, ...],
    splits: tuple[str, ...],
    output: str,
) -> None:
    width = max(map(len, (*heads, "head")))
    wide = max(map(len, (*splits, "split")))
    print(f"{'head':<{width}}  {'split':<{wide}}  AUROC   AUPRC   images  positive")
    for head in heads:
        for split in splits:
            found = metrics[head][split]
            figures = "  ".join(
                "  -   " if found[name] is None else f"{found[name]:.4f}"
                for name in ("auroc", "auprc")
            )
            print(
                f"{head:<{width}}  {split:<{wide}}  {figures}  {found['n']:>6}  "
                f"{found['n_positive']:>8}"
            )
    print(f"{output} holds the head, its predictions and plots")
