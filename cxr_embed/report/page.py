"""Renders self-contained HTML pages from the package's Jinja2 templates.

A page loads nothing: styles, script and pictures are inside it. Its content security policy forbids
all other content, including scripts injected through a file name. Templates escape all text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup


def render(template: str, **data: object) -> bytes:
    """Returns a page.

    Args:
        template: path of the template below the package.
        **data: the template's variables.
    """
    return _environment().get_template(template).render(data).encode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cxr_embed", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, coordinate=coordinate, csp_hash=_csp_hash)
    environment.globals.update(style=_asset("page.css"), script=_asset("page.js"))
    return environment


def number(value: Any, form: str = ",") -> str:
    """Formats a number, by default as 12,000; anything else becomes a hyphen."""
    is_number = isinstance(value, int | float) or hasattr(value, "__float__")
    return format(value, form) if is_number else "-"


def coordinate(value: float) -> str:
    """Formats a coordinate of a drawing with up to two decimals."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _printable(value: Any) -> Any:
    """Replaces what is not text: file names may contain control characters and invalid UTF-8."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _asset(name: str) -> Markup:
    return Markup((files("cxr_embed.report") / "assets" / name).read_text("utf-8"))


def _csp_hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
