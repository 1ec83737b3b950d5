"""The documentation is true: every command runs, every fact that repeats the code equals it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_architecture
import update_docs
import verb_server
from builders import GRADIENT, make_dicom
from synthetic import write_example

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("part", update_docs.PARTS)
def test_generated_parts_are_up_to_date(part: str) -> None:
    page, text = update_docs.updated(part)
    assert page.read_text() == text, "run: python scripts/update_docs.py"


@pytest.mark.parametrize("page", [p for p in PAGES if FENCE.search(p.read_text())], ids=str)
def test_every_command_and_example_runs(
    page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, small_model: Path
) -> None:
    """All blocks of one page, in order, in a folder that has what a reader would have."""
    scratch = tmp_path_factory.mktemp("shell")
    (tmp_path / "radiographs").mkdir()
    for number in range(3):
        path = tmp_path / f"radiographs/{number}.dcm"
        path.write_bytes(make_dicom(np.roll(GRADIENT, 900 * number)))
    (tmp_path / "my_model").symlink_to(small_model)
    if page.name == "heads.md":
        write_example(tmp_path)
    for name in ("configs", "scripts"):  # the reader works in a checkout
        (tmp_path / name).symlink_to(ROOT / name)
    blocks = FENCE.findall(page.read_text())
    if page.name == "outputs.md":  # it shows how to read what the other pages write
        blocks.insert(0, FENCE.findall((ROOT / "README.md").read_text())[0])
    for kind, text in blocks:
        script = text if kind == "bash" else f"python - <<'END'\n{text}END\n"
        done = verb_server.run(script, tmp_path, scratch)
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_names_the_two_commands_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE)


def test_the_pictures_are_small_and_load_nothing() -> None:
    pictures = list((ROOT / "docs/pictures").iterdir())
    assert sum(path.stat().st_size for path in pictures) < 300_000
    for path in pictures:
        for page in ("README.md", "docs/index.md"):
            assert f"pictures/{path.name}" in (ROOT / page).read_text()
        if path.suffix == ".svg":
            addresses = re.findall(r"https?://[^\s\"')]+", path.read_text())
            assert set(addresses) <= {"http://www.w3.org/2000/svg"}


def test_contributing_draws_the_rooms_in_the_order_of_their_imports() -> None:
    picture = (ROOT / "CONTRIBUTING.md").read_text().split("```")[1]
    drawn = re.findall(r"^[ │├└─]*([a-z]+)/ ", picture, re.MULTILINE)
    assert drawn == [room for room in test_architecture.ROOMS if room]


def test_contributing_names_registries_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:cxr_embed|tests)/[a-z_/]+(?:\.py|/))`", text):
        assert (ROOT / path).exists(), path
    for name, path in re.findall(r"`([A-Z]+)` in `(\S+\.py)`", text):
        assert re.search(rf"^{name}\b.*=", (ROOT / path).read_text(), re.MULTILINE), name


def test_the_references_of_the_readme_are_those_of_the_citation_file() -> None:
    cited = re.findall(r"^ +doi: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    references = (ROOT / "README.md").read_text().split("[start:citations]")[1]
    assert len(cited) == 4
    assert re.findall(r"\[doi:(\S+)\]", references) == cited


def test_the_site_builds_without_a_warning_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text()
        )
        assert not loaded, page
