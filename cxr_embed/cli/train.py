"""`cxr-embed train` and `python -m train`: a small classifier on top of embeddings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import head_flags
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.heads.network import NetworkSettings

USAGE = """\
Trains a head: a small network on top of embeddings, for one label or several.

  python -m train --labels_csv CSV --head_name NAME --data_dir EMBEDDINGS [flags]

Writes model.keras, head.json, metrics.json, predictions.csv and plots to --output_dir.
Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.text("train_split_name", "the split to learn from", default="train")
    values.text(
        "tune_split_name",
        "the split that decides when training stops; by default tune, with --mimic_dir validate",
    )
    values.text("test_split_name", "a split that is used only to measure the head")
    head_flags.define_labels(values)
    head_flags.define_embeddings(values)
    values.text(
        "hidden_layer_sizes",
        "units of each hidden layer; empty: a linear probe, without the network",
        default="512,256",
    )
    values.number("num_epochs", 100, "most passes over the training images", least=1)
    values.number(
        "patience", 10, "stop after N epochs without a lower loss on the tune split", least=1
    )
    values.number(
        "batch_size",
        0,
        "images per step; 0 chooses 16 to 2,048 by the number of training images",
        least=0,
    )
    values.decimal("learning_rate", 0.001, "learning rate of the optimiser, Adam", least=0.0)
    values.choice(
        "class_weights",
        "none",
        ["none", "balanced"],
        "balanced: both classes of a head have the same weight; this worsens the calibration",
    )
    values.switch(
        "calibrate",
        "scale and shift the logits to fit the tune split; the AUROC stays the same",
        default=True,
    )
    values.number(
        "seed",
        0,
        "seed of the weights and of the order; the same seed gives the same head",
        least=0,
    )
    values.switch("allow_shared_patients", "let a patient have images in several splits")
    head_flags.define_output(values, "heads/<head names>")
    return values


def main(arguments: list[str]) -> int:
    """Trains a head; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    heads = head_flags.head_names(values, are_needed=True)
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


def _settings(values: cli_flags.FlagSet) -> NetworkSettings:
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
