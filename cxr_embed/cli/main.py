"""`cxr-embed VERB ...`: picks the verb, and turns what went wrong into an exit status."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable

from cxr_embed.errors import MachineFault, UsageError, one_line

# verb: (module with main(arguments) -> status, one line for the list of verbs)
VERBS: dict[str, tuple[str, str]] = {
    "run": ("cxr_embed.cli.run", "the main job: images in, one .tfrecord each out"),
    "train": ("cxr_embed.cli.train", "trains a classifier on embeddings and a CSV of labels"),
    "predict": ("cxr_embed.cli.predict", "applies a trained head to embeddings"),
    "evaluate": ("cxr_embed.cli.evaluate", "measures predictions, with 95 % intervals"),
    "few-shot": ("cxr_embed.cli.few_shot", "measures AUROC against the number of labelled images"),
    "inspect": ("cxr_embed.cli.inspect", "how one file becomes pixels"),
    "pack": ("cxr_embed.cli.pack", "packs embeddings into Parquet, .npz or TFRecord shards"),
    "verify": ("cxr_embed.cli.verify", "finds damaged, missing, duplicate and unusual embeddings"),
    "search": ("cxr_embed.cli.search", "finds the images most similar to one image"),
    "report": ("cxr_embed.cli.report", "writes an HTML page about an output"),
    "benchmark": (
        "cxr_embed.cli.benchmark",
        "estimates from a sample how long all images will take",
    ),
    "export-model": ("cxr_embed.cli.export_model", "writes the reference EfficientNet"),
}


def main(arguments: list[str]) -> int:
    """Runs one verb.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit status.
    """
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_list_of_verbs())
        return 0
    if arguments[0] == "--version":
        from cxr_embed import __version__

        print(f"cxr-embed {__version__}")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        return _fail(f"unknown verb {verb}: one of {', '.join(VERBS)}", 2)
    module = importlib.import_module(VERBS[verb][0])
    return guarded(module.main, arguments[1:])


def guarded(verb: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Runs a verb; a user's mistake is one line and status 2, any other error is status 3."""
    try:
        return verb(arguments)
    except UsageError as error:
        return _fail(error, 2)
    except MachineFault as error:
        return _fail(error, 3)
    except BrokenPipeError:  # the reader of the output is gone
        return 3
    except KeyboardInterrupt:
        return _fail("interrupted", 3)
    except Exception as error:
        traceback.print_exc()
        return _fail(f"stopped by an error: {type(error).__name__}: {one_line(error)}", 3)


def _fail(line: object, status: int) -> int:
    print(f"cxr-embed: {line}", file=sys.stderr)
    return status


def _list_of_verbs() -> str:
    lines = ["cxr-embed VERB [flags]    (cxr-embed VERB --help lists its flags)", ""]
    lines += [f"  {verb:<14} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(lines)


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
