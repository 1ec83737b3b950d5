"""Flags as absl has them, with errors of one line and help that reads as a table."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace

from absl import flags

from cxr_embed import storage
from cxr_embed.errors import UsageError, cannot_be_written, one_line

COMMON_FLAGS = {
    "gcs_billing_project": "the project that pays for gs:// requests; requester-pays buckets need "
    "it",
    "flagfile": "a file with one flag per line, such as configs/local.flags",
}

# What is not a place: models of the Hub have checks of their own.
_OTHER_ADDRESSES = ("hf://",)

# absl's words for a wrong value, and ours.
_PLAIN = (
    (r"^flag (?=--)", ""),
    (r"invalid literal for int\(\) with base 10: .*", "pass a whole number"),
    (r"could not convert string to float: .*", "pass a number"),
    (r"\('Non-boolean argument to boolean flag', .*\)", "pass true or false"),
    (r"^ERROR:: Unable to open flagfile: \[Errno \d+\] (.*): '(.*)'$", r"--flagfile \2: \1"),
    (r"value should be one of <(.*)>", r"pass one of \1"),
)

HELP_FLAGS = ("--help", "-h", "-help", "--helpfull", "--helpshort")


class FlagSet(flags.FlagValues):
    """The flags of one verb: defined here, then parsed by `begin`, then read as attributes."""

    def text(self, name: str, help_: str, default: str | None = None) -> None:
        """Defines a flag that takes a text."""
        flags.DEFINE_string(name, default, help_, flag_values=self)

    def repeatable(self, name: str, help_: str) -> None:
        """Defines a flag that takes a text and may be given several times; a list, or None."""
        flags.DEFINE_multi_string(name, None, help_, flag_values=self)
        self[name].help = help_  # without the line that absl adds

    def number(
        self,
        name: str,
        default: int | None,
        help_: str,
        *,
        least: int | None = None,
        most: int | None = None,
    ) -> None:
        """Defines a flag that takes a whole number."""
        flags.DEFINE_integer(name, default, help_, least, most, flag_values=self)

    def decimal(
        self,
        name: str,
        default: float | None,
        help_: str,
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> None:
        """Defines a flag that takes a number."""
        flags.DEFINE_float(name, default, help_, least, most, flag_values=self)

    def choice(self, name: str, default: str | None, choices: Iterable[str], help_: str) -> None:
        """Defines a flag that takes one of several words."""
        flags.DEFINE_enum(name, default, list(choices), help_, flag_values=self)

    def switch(self, name: str, help_: str, *, default: bool = False) -> None:
        """Defines a flag that is on or off."""
        flags.DEFINE_boolean(name, default, help_, flag_values=self)

    def require(self, *names: str) -> None:
        """Raises UsageError with the help of the first of these flags that has no value."""
        for name in names:
            if not self[name].value:
                raise UsageError(f"--{name} is missing: {self[name].help}")


def begin(
    values: flags.FlagValues, arguments: list[str], usage: str, *, takes_rest: bool = False
) -> list[str] | None:
    """Begins a verb: shows its help, or parses its flags and sets up what is logged.

    Args:
        values: the verb's flags, unparsed; they are parsed afterwards.
        arguments: the command line without the program's name and the verb.
        usage: the help's text above the flags.
        takes_rest: let arguments that are not flags of the verb be.

    Returns:
        The arguments that are not flags of the verb, in order; None where the help was shown, so
        that there is nothing else to do.

    Raises:
        UsageError: a value that a flag does not take, or an argument that the verb does not know.
    """
    if any(argument in HELP_FLAGS for argument in arguments):
        print(help_text(usage, values))
        return None
    rest = parse(values, arguments)
    if not takes_rest:
        refuse_unknown(values, rest)
    from cxr_embed.cli import terminal

    terminal.set_up_logging(values.verbosity if "verbosity" in values else 0)
    return rest


def parse(values: flags.FlagValues, arguments: list[str]) -> list[str]:
    """Parses the flags that `values` knows.

    Args:
        values: the verb's flags; `--flagfile` and `--gcs_billing_project` are understood for all.
        arguments: the command line without the program's name.

    Returns:
        The arguments that are no flags of the verb, in order.

    Raises:
        UsageError: a value that a flag does not take, or an unreadable flagfile.
    """
    _define_common(values)
    # Beam's flags may be given as `--name value`: parse beyond the first bare word.
    values.set_gnu_getopt(True)
    try:
        rest = list(values(["cxr-embed", *arguments], known_only=True)[1:])
    except flags.Error as error:
        raise UsageError(_plain(one_line(error))) from error
    _check_places(values)
    if values.gcs_billing_project:
        storage.configure(replace(storage.settings(), billing_project=values.gcs_billing_project))
    return rest


def _plain(message: str) -> str:
    """Returns absl's message about a wrong value without Python's terms."""
    for pattern, plain in _PLAIN:
        message = re.sub(pattern, plain, message)
    return message


def _check_places(values: flags.FlagValues) -> None:
    """Raises UsageError if an address is not valid, before a message repeats what is in it."""
    for name in values:
        value = values[name].value
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or text.startswith(_OTHER_ADDRESSES):
                continue
            if "://" in text or "\0" in text:
                storage.check_place(text, f"--{name}")


def _define_common(values: flags.FlagValues) -> None:
    """Defines what every verb understands."""
    for name, help_ in COMMON_FLAGS.items():
        if name not in values:
            flags.DEFINE_string(name, None, help_, flag_values=values)


def refuse_unknown(values: flags.FlagValues, unknown: list[str]) -> None:
    """Raises UsageError that names the first unknown argument and, if close, what was meant."""
    if not unknown:
        return
    import difflib

    first = unknown[0].partition("=")[0]
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
        default = (
            f" (default: {shown_default(flag)})" if flag.default not in (None, False, "") else ""
        )
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


def shown_default(flag: flags.Flag) -> str:
    """Returns a flag's default for people; of a switch that is on, also how to turn it off."""
    if isinstance(flag.default, bool):
        return f"on; off with --no{flag.name}" if flag.default else "off"
    return str(flag.default)


def without_choices(help_: str) -> str:
    """Returns a flag's help without the `<a|b>: ` that absl puts before a choice's."""
    return help_.partition(">: ")[2] if help_.startswith("<") else help_


def write_file(flag: str, path: str, data: bytes) -> None:
    """Writes the file that a flag names, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        storage.write_whole(path, data, replace=True)
    except OSError as error:
        raise cannot_be_written(f"--{flag} {path}", error) from error
