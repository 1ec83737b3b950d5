"""Flags as absl has them, with errors of one line and help that reads as a table."""

from __future__ import annotations

import textwrap
from dataclasses import replace

from absl import flags

from cxr_embed.errors import UsageError, one_line
from cxr_embed.storage import gcs

COMMON_FLAGS = {
    "gcs_billing_project": "the project that pays for gs:// requests; requester-pays buckets need "
    "it",
    "flagfile": "a file with one flag a line, e.g. configs/local.flags",
}

HELP_FLAGS = ("--help", "-h", "-help", "--helpfull", "--helpshort")


def wants_help(arguments: list[str]) -> bool:
    """Whether the user asked for help."""
    return any(argument in HELP_FLAGS for argument in arguments)


def parse(values: flags.FlagValues, arguments: list[str]) -> list[str]:
    """Parses the flags that `values` knows.

    Args:
        values: the verb's flags; `--flagfile` and `--gcs_billing_project` are understood for all.
        arguments: the command line without the program's name.

    Returns:
        What is left over, in order.

    Raises:
        UsageError: a value that a flag does not take, or an unreadable flagfile.
    """
    _define_common(values)
    # Beam's flags may stand as `--name value`: go on after the first bare word.
    values.set_gnu_getopt(True)
    try:
        leftovers = list(values(["cxr-embed", *arguments], known_only=True)[1:])
    except flags.Error as error:
        raise UsageError(one_line(error)) from error
    if values.gcs_billing_project:
        gcs.configure(replace(gcs.settings(), billing_project=values.gcs_billing_project))
    return leftovers


def _define_common(values: flags.FlagValues) -> None:
    """Defines what every verb understands."""
    for name, help_ in COMMON_FLAGS.items():
        if name not in values:
            flags.DEFINE_string(name, None, help_, flag_values=values)


def refuse_leftovers(values: flags.FlagValues, leftovers: list[str]) -> None:
    """Raises UsageError that names the first of `leftovers` and, if close, what was meant."""
    if not leftovers:
        return
    import difflib

    first = leftovers[0].partition("=")[0]
    near = difflib.get_close_matches(first.lstrip("-"), list(values), 1)
    hint = f"; did you mean --{near[0]}?" if near and first.startswith("-") else ""
    kind = "flag" if first.startswith("-") else "argument"
    raise UsageError(f"unknown {kind} {first}{hint}")


def help_text(usage: str, values: flags.FlagValues) -> str:
    """Returns the help of one verb: its usage, and each flag with its default."""
    lines = [usage.strip(), "", "Flags:"]
    _define_common(values)
    for name in sorted(values, key=lambda name: name in COMMON_FLAGS):
        flag = values[name]
        default = "" if flag.default in (None, False, "") else f" (default: {flag.default})"
        choices = getattr(flag.parser, "enum_values", None)
        values_shown = f"  {'|'.join(choices)}" if choices else ""
        lines.append(f"  --{name}{values_shown}")
        lines += textwrap.wrap(
            f"{without_choices(flag.help)}{default}",
            92,
            initial_indent="      ",
            subsequent_indent="      ",
        )
    return "\n".join(lines)


def without_choices(help_: str) -> str:
    """Returns a flag's help without the `<a|b>: ` that absl puts before a choice's."""
    return help_.partition(">: ")[2] if help_.startswith("<") else help_
