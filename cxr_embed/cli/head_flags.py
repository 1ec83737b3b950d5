"""Flags that the verbs about heads share: where labels are, and which embeddings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxr_embed.cli.flags import FlagSet
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.heads.labels import LabelTable

# Keys of heads.labels' policies, repeated so that --help need not import NumPy.
_UNCERTAIN = ("missing", "negative", "positive")
_BLANK = ("missing", "negative")

# What metrics.json holds beside the heads.
RESERVED_HEADS = ("unmatched_labels", "unlabelled_embeddings")


def define_labels(values: FlagSet, with_heads: bool = True) -> None:
    """Defines where labels come from and how to read them."""
    values.repeatable("labels_csv",
        "a CSV with the columns image_id, split, and one per head with 1, 0 or blank; local or in "
        "a bucket; may be repeated",
    )  # fmt: skip
    values.text(
        "mimic_dir",
        "in place of --labels_csv: the folder of "
        "mimic-cxr-2.0.0-{metadata,split,chexpert}.csv.gz; its tune split is called validate",
    )
    if with_heads:
        values.repeatable(
            "head_name", "the label's column; repeat it, or separate several by commas"
        )
    values.text(
        "group_column",
        "the column that identifies the patient; by default patient_id or subject_id, if present",
    )
    values.choice(
        "uncertain_labels",
        "missing",
        _UNCERTAIN,
        "what -1 means: CheXpert's labeller writes it where a report is uncertain",
    )
    values.choice(
        "blank_labels",
        "missing",
        _BLANK,
        "what an empty cell means; in MIMIC's files the report does not mention the finding",
    )


def define_embeddings(values: FlagSet, name: str = "data_dir") -> None:
    """Defines where embeddings are; the published name and every verb's name mean the same.

    Args:
        values: the verb's flags.
        name: the name that the verb's help prefers.
    """
    other = "input_path" if name == "data_dir" else "data_dir"
    values.repeatable(name,
        "embeddings: a folder of records or a packed file, local or in a bucket; may be repeated: "
        "all sets are used as one",
    )  # fmt: skip
    values.repeatable(other, f"another name of --{name}")
    values.switch(
        "mixed_settings", "accept sets of embeddings that were made with different settings"
    )


def define_output(values: FlagSet, default: str) -> None:
    """Defines where results go, under both names."""
    values.text("output_dir", f"the folder to write, local or in a bucket; by default {default}")
    values.text("output_path", "another name of --output_dir")
    values.switch("overwrite", "write into a folder that is not empty")


def one_of(values: FlagSet, first: str, second: str) -> str | None:
    """Returns what was given under one of two names of the same thing.

    Raises:
        UsageError: both were given, and differ.
    """
    given = [values[name].value for name in (first, second) if values[name].value]
    if len(given) > 1 and given[0] != given[1]:
        raise UsageError(f"--{first} and --{second} mean the same: pass one of them")
    return given[0] if given else None


def embeddings_paths(values: FlagSet) -> list[str]:
    """Returns where the embeddings are.

    Raises:
        UsageError: neither flag was given.
    """
    found = one_of(values, "data_dir", "input_path")
    if not found:
        raise UsageError(
            "--data_dir is missing: a folder of records or a packed file, local or in a bucket"
        )
    return list(found)


def head_names(values: FlagSet, *, are_needed: bool = False) -> tuple[str, ...]:
    """Returns the heads, each once.

    Raises:
        UsageError: a name that cannot be one; or there is none, but `are_needed`.
    """
    names = [
        name.strip()
        for given in values.head_name or []
        for name in given.split(",")
        if name.strip()
    ]
    if are_needed and not names:
        raise UsageError("--head_name is missing: the column of --labels_csv to learn")
    for name in names:
        if name in RESERVED_HEADS:
            raise UsageError(f"--head_name {name}: that name is taken in metrics.json")
    return tuple(dict.fromkeys(names))


def layer_sizes(values: FlagSet) -> tuple[int, ...]:
    """Returns units of each hidden layer; none where the flag is empty.

    Raises:
        UsageError: one that is no number from 1 up.
    """
    texts = [text.strip() for text in values.hidden_layer_sizes.split(",") if text.strip()]
    for text in texts:
        if not (text.isascii() and text.isdecimal()) or int(text) < 1:
            raise UsageError(f"--hidden_layer_sizes {text}: numbers from 1 up, as in 512,256")
    return tuple(int(text) for text in texts)


def read_labels(
    values: FlagSet,
    heads: tuple[str, ...],
    extra_columns: Sequence[str] = (),
    needs_split: bool = True,
) -> LabelTable:
    """Reads the labels that the flags ask for.

    Raises:
        UsageError: none or both kinds were asked for, or they cannot be read.
    """
    if bool(values.labels_csv) == bool(values.mimic_dir):
        raise UsageError("pass one of --labels_csv and --mimic_dir")
    from cxr_embed.heads import labels, mimic_labels

    options = labels.LabelOptions(
        heads, values.group_column, tuple(extra_columns), values.uncertain_labels,
        values.blank_labels, needs_split,
    )  # fmt: skip
    if values.mimic_dir:
        return mimic_labels.read_mimic(values.mimic_dir, options)
    files = dict.fromkeys(values.labels_csv)
    return labels.concatenate([labels.read_labels_csv(file, options) for file in files])


def tune_split(values: FlagSet) -> str:
    """Returns the tune split's name: as given, or else as the labels' files call it."""
    if values.tune_split_name:
        return str(values.tune_split_name)
    return "validate" if values.mimic_dir else "tune"


def command_of(verb: str, arguments: Sequence[str]) -> str:
    """Returns the command as one can type it again."""
    return shlex.join(["cxr-embed", verb, *arguments])
