"""`cxr-embed predict`: applies a trained head to embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import head_flags
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.heads.saved import SavedHead

USAGE = """\
Applies a head that `cxr-embed train` has made to embeddings, and writes a table of probabilities.

  cxr-embed predict --head DIR --input_path EMBEDDINGS --output_path FILE.csv [--sensitivity 0.95]

Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""

RATES = ("sensitivity", "specificity")


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.text("head", "the --output_dir of a training run, local or in a bucket")
    head_flags.define_embeddings(values, "input_path")
    values.text("output_path", "the .csv to write, local or in a bucket")
    for rate in RATES:
        values.decimal(
            rate,
            None,
            f"also write classes, with this {rate} or more on the tune split: 0 to 1",
            least=0.0,
            most=1.0,
        )
    values.switch("overwrite", "replace an existing file")
    values.switch(
        "allow_other_embeddings",
        "accept embeddings that were made with other settings than those of the training",
    )
    return values


def main(arguments: list[str]) -> int:
    """Applies a head; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    values.require("head")
    sources = head_flags.embeddings_paths(values)
    values.require("output_path")
    output = values.output_path
    if not output.endswith(".csv"):
        raise UsageError(f"--output_path {output} must end in .csv")
    from cxr_embed import storage

    if storage.exists(output) and not values.overwrite:
        raise UsageError(f"--output_path {output} exists: pass --overwrite")

    from cxr_embed.cli import terminal
    from cxr_embed.heads import applying, mapped, saved

    log = terminal.Log()
    head = saved.read_head(values.head)
    thresholds = _thresholds(values, head)
    for name, threshold in thresholds.items():
        log(f"{name}: positive from a probability of {threshold:.4f}")
    embeddings = mapped.open_embeddings(sources, log, mixed_settings=values.mixed_settings)
    predictions = applying.apply(
        values.head, head, embeddings, allow_others=values.allow_other_embeddings, log=log
    )
    predictions.thresholds.update(thresholds)
    folder, _, name = output.rpartition("/")
    saved.write_files(folder or ".", {name: predictions.to_csv()})
    print(f"{output} holds {', '.join(head.heads)} for {len(predictions)} images")
    return 0


def _thresholds(values: cli_flags.FlagSet, head: SavedHead) -> dict[str, float]:
    """Returns the threshold of each head, or none if no rate was asked for."""
    from cxr_embed.heads import operating_points

    asked = [rate for rate in RATES if values[rate].value is not None]
    if not asked:
        return {}
    if len(asked) > 1:
        raise UsageError("pass one of --sensitivity and --specificity")
    if not head.thresholds:
        raise UsageError(
            f"--{asked[0]}: {values.head} was trained by an earlier version and carries no "
            "thresholds: train it again"
        )
    rule = operating_points.Rule(asked[0], values[asked[0]].value)
    return {name: operating_points.look_up(head.thresholds[name], rule) for name in head.heads}
