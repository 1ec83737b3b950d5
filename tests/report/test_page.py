"""No text becomes markup, and a page can ask nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from cxr_embed.report.page import Html, data_block, document, escaped, table, tag

HOSTILE = "</script><script>alert(1)</script>\"'&<!--"


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_text_stays_text() -> None:
    made = tag("p", HOSTILE, tag("b", HOSTILE), title=HOSTILE, class_="x", data_a_b=1)
    elements = Elements(made)
    assert [name for name, _ in elements.found] == ["p", "b"]
    assert elements.found[0][1] == {"title": HOSTILE, "class": "x", "data-a-b": "1"}
    assert elements.words == HOSTILE * 2


def test_attributes_that_are_switches() -> None:
    assert tag("button", hidden=True, disabled=False, id=None) == "<button hidden></button>"
    assert tag("img", src="a") == '<img src="a">'


def test_what_is_no_text_at_all() -> None:
    name = b"caf\xe9\x00\x1b[2J".decode("utf-8", "surrogateescape") + "\u202etxt"
    made = escaped(name)
    assert made.encode() == "caf?\ufffd\ufffd[2J\ufffdtxt".encode()
    assert isinstance(made, Html)


def test_data_cannot_end_its_element() -> None:
    block = data_block("x", {"name": HOSTILE})
    assert block.count("<") == 2
    assert json.loads(re.sub("<.*?>", "", block)) == {"name": HOSTILE}


def test_tables_have_captions_and_headings() -> None:
    elements = Elements(table("What", ["A", "B"], [["x", 1], ["y", 2]], numeric=(1,)))
    names = [name for name, _ in elements.found]
    assert names.count("caption") == 1
    scopes = [attributes.get("scope") for name, attributes in elements.found if name == "th"]
    assert scopes == ["col", "col", "row", "row"]


def test_only_the_pages_own_script_may_run() -> None:
    page = document("T", tag("p", HOSTILE)).decode()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == len(styles) == 1
    policy = Elements(page).found[3][1]["content"] or ""
    for text, kind in ((scripts[0], "script-src"), (styles[0], "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
