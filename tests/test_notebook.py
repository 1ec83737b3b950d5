"""The notebook runs from a clean kernel, start to end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs/notebooks/quickstart.ipynb"


def _outputs(cell: Any, kind: str) -> list[Any]:
    return [output for output in cell.get("outputs", []) if output.output_type == kind]


@pytest.mark.slow
def test_it_runs_and_shows_what_it_promises() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    text = "".join(o.text for cell in notebook.cells for o in _outputs(cell, "stream"))
    assert "embedded       142" in text
    assert "radiographs/real_chest_pa.dcm (1280,) float32" in text
    assert "embeddings without a label: 2" in text
    assert '"EFFUSION": {' in text
    assert "EFFUSION, split test: 47 images" in text
    aurocs = re.findall(r"(trained on photographs|random weights): AUROC (\S+) with", text)
    trained, untrained = (float(auroc) for _, auroc in aurocs)
    assert trained > 0.6
    assert trained > untrained + 0.05
    pictures = [
        o for c in notebook.cells for o in _outputs(c, "display_data") if "image/png" in o.data
    ]
    assert len(pictures) == 3


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
