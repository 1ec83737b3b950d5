"""`cxr-embed few-shot`: how many labels it takes."""

from __future__ import annotations

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import head_flags
from cxr_embed.errors import UsageError

USAGE = """\
Measures AUROC against the number of labelled images per class: 1, 2, 4 ... N, several draws of
each, with a linear probe and with a network of two hidden layers.

  cxr-embed few-shot --labels_csv CSV --head_name NAME --input_path EMBEDDINGS --output_path DIR

Writes few_shot.csv, few_shot_summary.csv (with 95 % intervals) and few_shot.png.
Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""

# Keys of heads.few_shot.CLASSIFIERS, repeated so that --help need not import NumPy.
CLASSIFIERS = ("linear", "network")


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()

    values.text("train_split_name", "the split to draw from", default="train")
    values.text("test_split_name", "the split to measure on", default="test")
    head_flags.define_labels(values)
    head_flags.define_embeddings(values)
    values.text(
        "classifiers",
        f"which classifiers to train: {', '.join(CLASSIFIERS)}",
        default=",".join(CLASSIFIERS),
    )
    values.number(
        "max_per_class",
        0,
        "the largest number of labels per class; 0 is all of the rarer class",
        least=0,
    )
    values.number("num_seeds", 5, "random draws for each number of labels", least=1)
    values.number("seed", 0, "seed of the first draw", least=0)
    values.text("hidden_layer_sizes", "units of the network's hidden layers", default="512,256")
    values.number(
        "num_steps",
        30,
        "batches that the network is trained on, but at least 2 passes",
        least=1,
    )
    values.number("batch_size", 512, "most images per step", least=2)
    values.number(
        "num_bootstrap", 1000, "resamples of seeds and test patients; 0 gives no intervals", least=0
    )
    values.switch("allow_shared_patients", "let a patient have images in several splits")
    head_flags.define_output(values, "few_shot")
    return values


def main(arguments: list[str]) -> int:
    """Draws the curve; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    heads = head_flags.head_names(values, are_needed=True)
    sources = head_flags.embeddings_paths(values)
    output = head_flags.one_of(values, "output_dir", "output_path") or "few_shot"
    classifiers = tuple(dict.fromkeys(name.strip() for name in values.classifiers.split(",")))
    if not classifiers or not set(classifiers) <= set(CLASSIFIERS):
        raise UsageError(
            f"--classifiers {','.join(classifiers)}: one or more of {','.join(CLASSIFIERS)}"
        )
    layers = head_flags.layer_sizes(values)
    if not layers:
        raise UsageError("--hidden_layer_sizes is empty: --classifiers=linear is a linear probe")
    if values.train_split_name == values.test_split_name:
        raise UsageError("the splits to draw from and to measure on must have different names")

    from cxr_embed.cli import terminal
    from cxr_embed.heads import dataset, few_shot, mapped, saved

    log = terminal.Log()
    saved.require_free(output, values.overwrite, "--output_dir")
    table = head_flags.read_labels(values, heads)
    embeddings = mapped.open_embeddings(sources, log, mixed_settings=values.mixed_settings)
    labelled = dataset.join(embeddings, table, allow_shared_patients=values.allow_shared_patients)
    splits = (values.train_split_name, values.test_split_name)
    for line in dataset.describe(labelled, splits):
        log(line)
    dataset.check_splits(labelled, splits)
    options = few_shot.Options(
        *splits, max_per_class=values.max_per_class, num_seeds=values.num_seeds,
        classifiers=classifiers, seed=values.seed, hidden_layer_sizes=layers,
        num_steps=values.num_steps, batch_size=values.batch_size, resamples=values.num_bootstrap,
    )  # fmt: skip
    files = few_shot.run(embeddings, labelled, options, log)
    saved.require_free(output, values.overwrite, "--output_dir", [few_shot.RESULTS_NAME])
    command = f"{head_flags.command_of('few-shot', arguments)}\n".encode()
    saved.write_files(output, {"command.txt": command, **dict(reversed(files.items()))})
    print(f"{output} holds {few_shot.RESULTS_NAME}, {few_shot.SUMMARY_NAME} and the plot")
    return 0
