"""Writes self-contained HTML pages, and escapes all text in them.

A page loads nothing: styles, script and pictures are inside it. Its content security policy forbids
all other content, including scripts injected through a file name.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

_VOID = frozenset(("br", "hr", "img", "input", "link", "meta"))


class Html(str):
    """Text that is already HTML. All other text is escaped when it is added to a page."""

    __slots__ = ()


def escaped(content: object) -> Html:
    """Returns content as HTML: text is escaped, `Html` is unchanged, lists are concatenated."""
    if isinstance(content, Html):
        return content
    if isinstance(content, list | tuple):
        return Html("".join(escaped(part) for part in content))
    # File names may contain bytes that are not valid text.
    text = str(content).encode("utf-8", "replace").decode()
    return Html(html.escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """Returns an element.

    Args:
        name: name of the element.
        *content: its content; see `escaped`.
        **attributes: attribute values, which are escaped. `class_` becomes class, and other
            underscores become hyphens. None and False omit an attribute, True omits its value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        parts.append(written if value is True else f'{written}="{escaped(value)}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in _VOID else f"{opening}{escaped(content)}</{name}>")


def table(
    caption: object,
    headings: list[object],
    rows: list[list[object]],
    *,
    numeric: tuple[int, ...] = (),
    class_: str | None = None,
) -> Html:
    """Returns a table with a caption; the first cell of each row is its heading.

    Args:
        caption: the caption.
        headings: one for each column.
        rows: cells, see `escaped`.
        numeric: numbers of the right-aligned columns.
        class_: CSS class of the table.
    """
    align = ["number" if column in numeric else None for column in range(len(headings))]
    head = [tag("th", h, scope="col", class_=a) for h, a in zip(headings, align, strict=True)]
    body = []
    for first, *rest in rows:
        cells = [tag("th", first, scope="row", class_=align[0])]
        cells += [tag("td", cell, class_=a) for cell, a in zip(rest, align[1:], strict=True)]
        body.append(tag("tr", *cells))
    inner = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *body),
        class_=class_,
    )  # fmt: skip
    return tag("div", inner, class_="table")


def data_uri(data: bytes, media_type: str = "image/jpeg") -> str:
    """Returns a file as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def data_block(identifier: str, data: Any) -> Html:
    """Returns JSON for the page's script, escaped so that no text can end the element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{identifier}">{text}</script>')


def document(title: str, *body: object) -> bytes:
    """Returns a whole page.

    Args:
        title: title of the page.
        *body: content of the page, see `escaped`.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source_of(style)}; "
        f"script-src {_source_of(script)}; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="robots", content="noindex"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        Html(f"<style>{style}</style>"),
    )
    # The script follows the content that it uses.
    page = tag("html", head, tag("body", *body, Html(f"<script>{script}</script>")), lang="en")
    return f"<!doctype html>\n{page}\n".encode()


def theme_button() -> Html:
    """Returns the button for light and dark mode; it is hidden without the script."""
    return tag("button", "Dark", type="button", id="theme", class_="quiet", hidden=True)


def _asset(name: str) -> str:
    return (files("cxr_embed.report") / "assets" / name).read_text("utf-8")


def _source_of(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
