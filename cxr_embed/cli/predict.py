"""`cxr-embed predict`: applies a trained head to embeddings."""

from __future__ import annotations

from absl import flags

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import head_flags
from cxr_embed.errors import UsageError

USAGE = """\
Applies a head that `cxr-embed train` has made to embeddings, and writes a table of probabilities.

  cxr-embed predict --head DIR --input_path EMBEDDINGS --output_path FILE.csv

Exit status: 0 done; 2 wrong flags or input; 3 broke."""


def make_flags() -> flags.FlagValues:
    """Returns the verb's flags, unparsed."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "head", None, "the --output_dir of a training run, local or in a bucket", flag_values=values
    )
    flags.DEFINE_string(
        "input_path", None, "embeddings: a folder of records, a packed file; local or in a bucket",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string("data_dir", None, "another name of --input_path", flag_values=values)
    flags.DEFINE_string(
        "output_path", None, "the .csv to write, local or in a bucket", flag_values=values
    )
    flags.DEFINE_boolean("overwrite", False, "replace an existing file", flag_values=values)
    flags.DEFINE_boolean(
        "allow_other_embeddings", False,
        "accept embeddings that were made with other settings than those of the training",
        flag_values=values,
    )  # fmt: skip
    return values


def main(arguments: list[str]) -> int:
    """Applies a head; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    if not values.head:
        raise UsageError("--head is missing: the folder that cxr-embed train has written")
    source = head_flags.embeddings_path(values)
    output = values.output_path
    if not output or not output.endswith(".csv"):
        raise UsageError("--output_path is missing: the .csv to write" if not output else
                         f"--output_path {output} must end in .csv")  # fmt: skip
    from cxr_embed import storage

    if storage.exists(output) and not values.overwrite:
        raise UsageError(f"--output_path {output} exists: pass --overwrite")

    from cxr_embed.cli import terminal
    from cxr_embed.heads import applying, mapped, saved

    log = terminal.Log()
    head = saved.read_head(values.head)
    embeddings = mapped.open_embeddings(source, log)
    predictions = applying.apply(
        values.head, head, embeddings, allow_others=values.allow_other_embeddings, log=log
    )
    folder, _, name = output.rpartition("/")
    saved.write_files(folder or ".", {name: predictions.to_csv()})
    print(f"{output} holds {', '.join(head.heads)} for {len(predictions)} images")
    return 0
