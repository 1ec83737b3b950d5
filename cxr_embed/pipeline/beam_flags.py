"""Beam's own flags: which of the command line's are known, and which runner they name."""

from __future__ import annotations

from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.runners.runner import create_runner

from cxr_embed.errors import UsageError, one_line

_IN_PROCESS = ("", "DirectRunner", "direct", "FnApiRunner", "SwitchingDirectRunner")

# Our classes are imported on the workers, so nothing of the launching program has to travel.
_NO_MAIN_SESSION = "--no_save_main_session"


class UnknownFlags(UsageError):
    """Flags that Beam does not know either, in `flags`."""

    def __init__(self, flags: list[str]) -> None:
        self.flags = flags
        super().__init__(f"unknown flag {flags[0]}")


def runner_and_flags(arguments: list[str]) -> tuple[str, list[str]]:
    """Checks the flags that are not ours.

    Returns:
        The runner's name, empty for Beam's in-process one, and the flags to start it with.

    Raises:
        UsageError: see `check_beam_flags`.
    """
    runner = check_beam_flags(arguments)
    if runner not in _IN_PROCESS:
        return runner, with_remote_defaults(arguments)
    parser = _StrictParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runner")
    return "", parser.parse_known_args(arguments)[1]


def check_beam_flags(arguments: list[str]) -> str:
    """Checks the flags that are not ours against all that Beam knows.

    Returns:
        The runner's name, empty where none was given.

    Raises:
        UsageError: Beam does not know one either (`UnknownFlags`), or not its value.
    """
    parser = _StrictParser(allow_abbrev=False, add_help=False)
    for options_class in _subclasses(PipelineOptions):
        options_class._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UnknownFlags(unknown)
    runner = known.runner or ""
    try:
        if runner:
            create_runner(runner)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--runner {runner}: {one_line(error)}") from error
    return runner


def with_remote_defaults(arguments: list[str]) -> list[str]:
    """Returns Beam flags for a runner elsewhere, with what this program needs there."""
    if any(flag.endswith("save_main_session") for flag in arguments):
        return arguments
    return [*arguments, _NO_MAIN_SESSION]


class _StrictParser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _subclasses(parent: type) -> list[Any]:
    found: dict[Any, None] = {}
    child: Any
    for child in parent.__subclasses__():
        if "_add_argparse_args" in child.__dict__:
            found[child] = None
        found.update(dict.fromkeys(_subclasses(child)))
    return list(found)
