"""Both published sizes of embeddings, 1,376 and 4,096 floats, through every verb."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import prediction_server
import pytest
from builders import GRADIENT, make_dicom
from running import records

import cxr_embed

IMAGES, SPLITS = 24, ("train", "train", "tune", "test")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_id", "split", "OPACITY"])
        for number in range(IMAGES):
            data = make_dicom(np.roll(GRADIENT, 51 * number))
            (tmp_path / f"in/{number:02d}.dcm").write_bytes(data)
            rows.writerow([f"{number:02d}", SPLITS[number // 2 % 4], number % 2])
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("size", [1376, 4096])
def test_from_the_published_command_to_every_verb(
    size: int, labels: Path, tmp_path: Path, succeed: Any
) -> None:
    do, output = succeed, tmp_path / "out"
    config = tmp_path / "endpoint.toml"
    with prediction_server.serve() as server:
        config.write_text(f'[endpoint]\naddress = "{server.address}"\n')
        server.shape = lambda vector: (vector * (size // len(vector) + 1))[:size]
        ran = do(
            "run", "--input_path", tmp_path / "in", "--output_path", output,
            "--embeddings_project", "my-project", "--endpoint_id", "1234567890",
            "--model_config", config,
        )  # fmt: skip
    assert f"{size} floats out" in ran.err
    assert server.endpoints == {
        "projects/my-project/locations/us-central1/endpoints/1234567890"
    }  # fmt: skip
    assert json.loads((output / "_embedding_config.json").read_text())["embedding_size"] == size
    assert len(records(output)) == IMAGES
    values = cxr_embed.load_embeddings(output).values
    assert values.shape == (IMAGES, size)

    do("verify", f"--input_path={output}", f"--inputs={tmp_path / 'in'}")
    do("report", f"--input_path={output}", f"--output_path={tmp_path / 'page.html'}", "--map=pca")
    assert f"{size:,}" in (tmp_path / "page.html").read_text()
    found = do("search", f"--input_path={output}", "--query=07", "--k=3")
    assert len(found.out.splitlines()) == 4
    for kind in ("parquet", "npz", "tfrecord"):
        packed = tmp_path / kind
        do("pack", f"--input_path={output}", f"--output_path={packed}", f"--format={kind}")
        do("verify", f"--input_path={packed}")
        np.testing.assert_array_equal(cxr_embed.load_embeddings(packed).values, values)

    data = (f"--data_dir={output}", f"--labels_csv={labels}")
    head = tmp_path / "head"
    do(
        "train", *data, "--head_name=OPACITY", "--num_epochs=1", "--hidden_layer_sizes=8,4",
        f"--output_dir={head}",
    )  # fmt: skip
    predictions = tmp_path / "predictions.csv"
    do("predict", f"--head={head}", f"--input_path={tmp_path / 'parquet'}",
       f"--output_path={predictions}")  # fmt: skip
    assert len(predictions.read_text().splitlines()) == 1 + IMAGES
    do("evaluate", f"--predictions={predictions}", f"--labels_csv={labels}", "--num_bootstrap=20")
    curve = tmp_path / "few"
    do("few-shot", *data, "--head_name=OPACITY", "--num_seeds=1", "--max_per_class=2",
       "--num_bootstrap=0", "--classifiers=linear", f"--output_dir={curve}")  # fmt: skip
    assert (curve / "few_shot.csv").is_file()
