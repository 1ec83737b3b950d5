"""One meaning of globs, for disks and buckets: that of Python's own."""

from __future__ import annotations

import glob
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_embed import storage
from cxr_embed.storage.globs import Glob, fixed_folder

NAMES = ("a", "b", "ab", "cx.dcm", "x.dcm", ".x.dcm", ".h", "a[b]", "]", "-", "!", "a-b", "B")
PIECES = (
    "a", "b", "x", ".dcm", "*", "**", "?", ".", "[ab]", "[!a]", "[^a]", "[a-c]", "[]]", "[!]a]",
    "[", "[a", "]", "-", "[a-]", "[.]", "[z-a]", "!", "B",
)  # fmt: skip

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
parts = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join),
    st.sampled_from(["**", "*", "x.dcm", "*.dcm", "a", ".*"]),
).filter(lambda part: part not in (".", ".."))
patterns = st.tuples(
    st.lists(parts, min_size=1, max_size=4).map("/".join), st.sampled_from(["", "", "", "/"])
).map("".join)


def make(root: Path, names: list[str]) -> list[str]:
    made = []
    for name in names:
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:  # a file where a folder was wanted
            continue
        if path.is_file():
            made.append(name)
    return made


def by_python(root: Path, pattern: str) -> tuple[set[str], set[str]]:
    """Returns the files that match, and all that is below a folder that does."""
    hits = [Path(hit) for hit in glob.glob(f"{root}/{pattern}", recursive=True)]  # noqa: PTH207
    files = {hit.relative_to(root).as_posix() for hit in hits if hit.is_file()}
    below = {
        path.relative_to(root).as_posix()
        for hit in hits
        if hit.is_dir()
        for path in hit.rglob("*")
        if path.is_file()
    }
    return files, below


@settings(max_examples=400)
@given(st.lists(paths, min_size=1, max_size=8), patterns)
def test_names_match_as_they_do_on_disk(names: list[str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = make(root, names)
        files, below = by_python(root, pattern)
        matcher = Glob(pattern)
        found = {name: matcher.below(name) for name in made}
        assert {name for name, rest in found.items() if rest == ""} == files
        assert {name for name, rest in found.items() if rest is not None} == files | below
        assert all(rest is None or name.endswith(rest) for name, rest in found.items())


@settings(max_examples=200)
@given(st.lists(paths, min_size=1, max_size=8), patterns)
def test_a_disk_is_searched_as_python_searches_it(names: list[str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, names)
        files, below = by_python(root, pattern)
        found = list(storage.matches(f"{folder}/{pattern}"))
        assert {path for path, rest in found if not rest} == {f"{folder}/{name}" for name in files}
        assert {path for path, _ in found} == {f"{folder}/{name}" for name in files | below}


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a/**/x.dcm", "a/x.dcm", ""),
        ("a/**/x.dcm", "a/b/c/x.dcm", ""),
        ("a/**/x.dcm", "a/b/cx.dcm", None),
        ("*.dcm", "a/x.dcm", None),
        ("*", ".x.dcm", None),
        (".*", ".x.dcm", ""),
        ("[!a]/x.dcm", "b/x.dcm", ""),
        ("[!a]/x.dcm", "a/x.dcm", None),
        ("p1?", "p10/s5/x.dcm", "s5/x.dcm"),
        ("a//*.dcm", "a/x.dcm", ""),
        ("**/p10/", "files/p10/x.dcm", "x.dcm"),
        ("x*/**", "x.dcm", None),
        ("x*/**", "x/y.dcm", ""),
    ],
)
def test_what_a_pattern_leads_to(pattern: str, path: str, expected: str | None) -> None:
    assert Glob(pattern).below(path) == expected


def test_a_pattern_with_many_stars_is_decided_at_once() -> None:
    pattern = "/".join(["**"] * 20 + ["*a" * 20])
    assert Glob(pattern).below("/".join(["a" * 100 + "b"] * 20)) is None


def test_the_fixed_folder_of_a_pattern() -> None:
    assert fixed_folder("in/files/p1*/x") == "in/files/"
    assert fixed_folder("*.dcm") == ""
