"""The documentation is true: every command runs, every fact that repeats the code equals it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import update_docs
from builders import GRADIENT, make_dicom
from synthetic import write_example

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("part", update_docs.PARTS)
def test_generated_parts_are_up_to_date(part: str) -> None:
    page, text = update_docs.updated(part)
    assert page.read_text() == text, "run: python scripts/update_docs.py"


@pytest.mark.parametrize("page", [p for p in PAGES if FENCE.search(p.read_text())], ids=str)
def test_every_command_and_example_runs(page: Path, tmp_path: Path, small_model: Path) -> None:
    """All blocks of one page, in order, in a folder that has what a reader would have."""
    (tmp_path / "radiographs").mkdir()
    for number in range(3):
        path = tmp_path / f"radiographs/{number}.dcm"
        path.write_bytes(make_dicom(np.roll(GRADIENT, 900 * number)))
    (tmp_path / "my_model").symlink_to(small_model)
    if page.name == "heads.md":
        write_example(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = FENCE.findall(page.read_text())
    if page.name == "outputs.md":  # it shows how to read what the other pages write
        blocks.insert(0, FENCE.findall((ROOT / "README.md").read_text())[0])
    for kind, text in blocks:
        program = ["bash", "-euc"] if kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, text], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
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
