"""Writes a benchmark's table into its section of RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_PACKAGES = ("apache-beam", "numpy", "opencv-python-headless", "pydicom", "tensorflow")


def conditions() -> str:
    """Returns a line that says when, with what and on what."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"{versions}; {_processor()}."
    )


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns the parser of a benchmark, which every one of them adds its flags to."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    return made


def show(title: str, lines: list[str], *, is_written: bool, section: str = "") -> None:
    """Prints a table; writes it under its title into RESULTS.md if that is wanted."""
    text = "\n".join(lines)
    print(text)
    if is_written:
        write_section(section or title.lower(), f"## {title}\n\n{text}")


def write_section(title: str, text: str) -> None:
    """Replaces or adds the part between `<!-- title -->` and `<!-- /title -->`."""
    old = RESULTS.read_text() if RESULTS.exists() else "# Benchmark results\n"
    section = f"<!-- {title} -->\n{conditions()}\n\n{text.strip()}\n<!-- /{title} -->"
    pattern = re.compile(rf"<!-- {title} -->.*<!-- /{title} -->", re.DOTALL)
    if pattern.search(old):
        RESULTS.write_text(pattern.sub(lambda _: section, old))
    else:
        RESULTS.write_text(f"{old.rstrip()}\n\n{section}\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    flags = "AVX-512" if info.exists() and "avx512f" in info.read_text() else "no AVX-512"
    return f"{len(names)} cores of {names[0] if names else platform.machine()}, {flags}"
