"""`cxr-embed report` as a user meets it: in words, and in a real browser."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_output import HOSTILE, Output

from cxr_embed.cli import main as cli_main
from cxr_embed.cli import search
from cxr_embed.records import Record, encode_record
from cxr_embed.storage import write_whole

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def tell(output: Output, do: Any) -> Any:
    def run(target: object, *more: str, input_path: object = output.records) -> Any:
        given = (f"--input_path={input_path}", f"--output_path={target}", "--map=pca")
        return do("report", *given, *more)

    return run


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    hostile = HOSTILE.replace('"', "")
    lines = [f"c{n:02},{n % 3 and 'sick'},{n * 7},{hostile}" for n in range(16)]
    path.write_text("\n".join(["dicom_id,finding,age,<b>free", *lines, "stranger,sick,1,x"]))
    return path


def words_of(page: Path) -> str:
    text = re.sub(r"<(style|script).*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", text)))


def test_what_it_tells(tell: Any, labels: Path, tmp_path: Path) -> None:
    page = tmp_path / "new/report.html"
    ran = tell(page, f"--labels_csv={labels}", "--colour_by=age")
    assert ran.status == 0, ran.err
    assert ran.out == f"{page}: {page.stat().st_size / 1e6:.1f} MB\n"
    words = words_of(page)
    for fact in (
        "embeddings 21", "floats each 4,096", "images failed 1", "truncated", "cxr_foundation",
        "160 x 140", "View Position is neither AP nor PA", "Records", "inverted?",
        "rotated by 90?", "blank?", "1 group of 2 images",
        "Labels are matched by dicom_id: 16 of 21 embeddings have a row, "
        "1 of the table's rows match no embedding.",
    ):  # fmt: skip
        assert fact.lower() in words.lower(), fact
    assert "Geheim" not in page.read_text()


def test_what_the_embeddings_hold_of_labels(tell: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["dicom_id,patient_id,EFFUSION,<i>rare,finding"]
    for number in range(120):
        values = random.standard_normal(32).astype(np.float32)
        has = number % 3 == 0
        values[:3] += 4 * has
        data = encode_record(Record(f"{number}.dcm", values))
        write_whole(str(tmp_path / f"out/{number}.tfrecord"), data)
        finding = "blank" if number % 2 else "mass"
        lines.append(f"{number},p{number // 2},{int(has)},{int(number < 3)},{finding}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    page, flag = tmp_path / "r.html", f"--labels_csv={tmp_path / 'labels.csv'}"
    assert tell(page, flag, "--images=0", input_path=tmp_path / "out").status == 0
    words = words_of(page)
    assert re.search(r"EFFUSION 1.000 \(0\.9\d\d to 1.000\) (0.9\d\d|1.000) ", words)
    assert "<i>rare too few: 2 patients are positive, 10 are needed" in words
    assert "<i>rare" not in page.read_text()
    assert "finding: blank 0." in words
    assert "A patient is in one fold" in words
    text = (tmp_path / "labels.csv").read_text().replace("patient_id", "room")
    (tmp_path / "labels.csv").write_text(text)
    assert tell(page, flag, "--images=0", input_path=tmp_path / "out").status == 0
    assert "each image counts as a patient of its own" in words_of(page)


def test_the_same_output_gives_the_same_page(tell: Any, tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        assert tell(tmp_path / f"{name}.html").status == 0
        pages.append(re.sub(r"\d\d:\d\d UTC", "", (tmp_path / f"{name}.html").read_text()))
    assert pages[0] == pages[1]


def test_nothing_but_records(tell: Any, output: Output, tmp_path: Path) -> None:
    bare = shutil.copytree(
        output.records, tmp_path / "bare", ignore=shutil.ignore_patterns("_*", "c0*")
    )
    assert tell(tmp_path / "r.html", "--images=0", input_path=bare).status == 0
    words = words_of(tmp_path / "r.html")
    assert "it is unknown how these embeddings were made" in words
    assert "Pictures are turned off" in words
    assert "There are only records: no run tables and no settings" in words


def test_embeddings_that_differ_by_rounding_only(tell: Any, tmp_path: Path) -> None:
    records = tmp_path / "alike"
    for number in range(3):
        values = np.nextafter(np.float32([0.1, 0.2, 0.3]), np.float32(number))
        data = encode_record(Record(f"{number}.dcm", values))
        write_whole(str(records / f"{number}.tfrecord"), data)
    assert tell(tmp_path / "page.html", input_path=records).status == 0


def test_inputs_that_are_gone(tell: Any, output: Output, tmp_path: Path) -> None:
    aside = output.images.rename(output.images.with_name("aside"))
    try:
        assert tell(tmp_path / "r.html").status == 0
    finally:
        aside.rename(output.images)
    words = words_of(tmp_path / "r.html")
    assert "file is gone" in words
    assert "21 more could not be read again" in words


def test_a_sample(tell: Any, tmp_path: Path) -> None:
    assert tell(tmp_path / "r.html", "--images=2", "--points=5").status == 0
    text = (tmp_path / "r.html").read_text()
    drawn = re.search('<svg[^>]*id="map-0".*?</svg>', text, re.DOTALL)
    assert drawn is not None
    assert drawn[0].count("<circle") == 5
    assert "5 of 21 embeddings" in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--colour_by=nothing",), "--colour_by nothing: pass one of View Position"),
        (("--labels_csv=/no/labels.csv",), "does not exist"),
        (("--images=-1",), "images"),
        (("--colour=x",), "did you mean --colour_by"),
        (("--output_path=x.txt",), "must end in .html"),
    ],
)
def test_mistakes(tell: Any, tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    ran = tell(tmp_path / "r.html", *flags)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err.splitlines()[-1]
    assert not (tmp_path / "r.html").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: pages are not looked at in a browser")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


class Opened:
    """A page in the browser, with all that it complained of or asked for."""

    def __init__(self, browser: Any, file: Path, scheme: str) -> None:
        self.page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(file.as_uri())
        self.page.wait_for_load_state("load")

    def close(self, file: Path) -> None:
        outside = [url for url in self.asked if not url.startswith("data:")]
        assert outside == [file.as_uri()]
        assert self.complaints == []
        self.page.close()

    def colour(self, what: str = "backgroundColor") -> str:
        return str(self.page.evaluate(f"getComputedStyle(document.body).{what}"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_in_a_browser(
    browser: Any, tell: Any, labels: Path, tmp_path: Path, scheme: str
) -> None:
    file = tmp_path / "report.html"
    assert tell(file, f"--labels_csv={labels}", "--colour_by=finding").status == 0
    opened = Opened(browser, file, scheme)
    page = opened.page

    shown = page.locator("img")
    assert all(shown.nth(n).evaluate("i => i.naturalWidth > 0") for n in range(shown.count()))
    assert page.locator("h1").inner_text().endswith("embeddings")
    assert page.locator("main b").all_inner_texts() != ["free"]
    assert page.evaluate("document.querySelectorAll('section h2').length") == 11
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    before = opened.colour()
    page.keyboard.press("Tab")  # the button comes first
    assert page.evaluate("document.activeElement.id") == "theme"
    page.keyboard.press("Enter")
    assert opened.colour() != before
    page.keyboard.press("Enter")
    assert opened.colour() == before

    point = page.locator("#map-0 circle").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    assert page.locator("#card img").evaluate("i => i.complete && i.naturalWidth > 0")
    page.locator("#map-0").focus()
    page.keyboard.press("ArrowRight")
    named = page.locator("#card b").inner_text()
    page.keyboard.press("ArrowUp")
    assert page.locator("#card").is_visible()
    assert page.locator("#card b").inner_text() != named
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible()
    page.select_option("#colour-by", label="age")
    assert page.locator("#map-0 circle.s4").count() > 0
    assert "to" in page.locator("#legend li").first.inner_text()

    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#theme").is_visible()
    assert len(page.pdf(format="A4")) > 20_000
    opened.close(file)


def test_the_gallery_in_a_browser(browser: Any, output: Output, tmp_path: Path) -> None:
    file = tmp_path / "gallery.html"
    arguments = [f"--input_path={output.records}", "--query=c03", "--k=20", f"--html={file}"]
    assert cli_main.guarded(search.main, arguments) == 0
    opened = Opened(browser, file, "dark")
    assert opened.page.locator(".results li").count() == 20
    assert opened.page.locator("img").count() == 21
    assert HOSTILE.replace("/", "_") in opened.page.locator(".results").inner_text()
    opened.close(file)
