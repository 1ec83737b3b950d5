"""A session in a terminal as SVG. Its own dark background suits light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

from rich import _export_format
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

# rich names fonts and pages of other hosts; a picture in a page may not load any.
_OTHER_HOSTS = re.compile(r"@font-face \{\{.*?\}\}\s*|<!-- Generated with .*?-->\s*", re.DOTALL)
_FORMAT = _OTHER_HOSTS.sub("", _export_format.CONSOLE_SVG_FORMAT).replace(
    "font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace"
)
# All escape sequences but those of colours (which end in m).
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Zac-ln-z]")
_REDRAWN = re.compile(r"\r\x1b\[2K|\r(?!\n)")
_PROGRESS = re.compile(r"(\d+)/(\d+)")


def drawing(session: Iterable[tuple[str, str]], columns: int) -> str:
    """Draws commands and what they printed.

    Args:
        session: pairs of a command line and what it printed to a terminal.
        columns: width of the terminal in characters.

    Returns:
        An SVG document.
    """
    console = Console(
        record=True,
        width=columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for index, (command, printed) in enumerate(session):
        if index:
            console.print()
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        for line in _lines(printed):
            console.print(Text.from_ansi(line))
    return console.export_svg(title="cxr-embed", theme=MONOKAI, code_format=_FORMAT)


def _lines(printed: str) -> list[str]:
    """Returns the lines that a reader sees; of a progress bar, one state near its end."""
    lines = []
    for line in printed.replace("\r\n", "\n").split("\n"):
        states = [_CURSOR.sub("", state).rstrip() for state in _REDRAWN.split(line)]
        lines.append(_late_state(states) or states[-1])
    return [line for line in lines if line]


def _late_state(states: list[str]) -> str | None:
    """Returns the first state of a progress bar that shows two thirds or more."""
    for state in states[:-1]:
        found = _PROGRESS.search(re.sub(r"\x1b\[[0-9;]*m", "", state))
        if found and 3 * int(found[1]) >= 2 * int(found[2]):
            return state
    return None
