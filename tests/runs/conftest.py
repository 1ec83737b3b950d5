"""Fixtures that several of these tests share."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[[str, str | None], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution's metadata on the import path, as pip does; None takes it away."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(name: str, version: str | None) -> None:
        stem = name.replace("-", "_")
        for old in site.glob(f"{stem}-*.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()
        if version is not None:
            folder = site / f"{stem}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
        importlib.invalidate_caches()

    return make
