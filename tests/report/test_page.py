"""No text becomes markup, and a page can ask nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from cxr_embed.report.page import number, render
from cxr_embed.report.thumbnails import Look, Picture
from cxr_embed.search.gallery import Hit

HOSTILE = "</script><script>alert(1)</script>\"'&<!--"
NO_TEXT = b"caf\xe9\x00\x1b[2J".decode("utf-8", "surrogateescape") + "\u202etxt"
GALLERY = "search/templates/gallery.html.j2"


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


def gallery(name: str) -> str:
    pictures = [Picture(row, name, name, Look(problem="file is gone")) for row in range(2)]
    hits = [Hit(0.5, name, name)]
    return render(GALLERY, name=name, hits=hits, pictures=pictures, facts=[(name, name)]).decode()


def test_text_stays_text() -> None:
    plain, hostile = (Elements(gallery(name)) for name in ("x", HOSTILE))
    assert [name for name, _ in hostile.found] == [name for name, _ in plain.found]
    assert hostile.words.count(HOSTILE) == plain.words.count("Images like x") + 4
    titles = [attributes["title"] for _, attributes in hostile.found if "title" in attributes]
    assert titles == [HOSTILE] * 3


def test_what_is_no_text_at_all() -> None:
    assert "Images like caf?\ufffd\ufffd[2J\ufffdtxt" in gallery(NO_TEXT)


def test_only_the_pages_own_script_may_run() -> None:
    page = gallery(HOSTILE)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == len(styles) == 1
    policy = Elements(page).found[3][1]["content"] or ""
    for text, kind in ((scripts[0], "script-src"), (styles[0], "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("value", "form", "words"),
    [(12_000, ",", "12,000"), (0.25, ".1%", "25.0%"), (None, ",", "-"), ("<b>", ",", "-")],
)
def test_numbers(value: object, form: str, words: str) -> None:
    assert number(value, form) == words


def test_templates_travel_with_the_package() -> None:
    for room in ("report", "search"):
        names = [path.name for path in (files("cxr_embed") / room / "templates").iterdir()]
        assert any(name.endswith(".html.j2") for name in names)
