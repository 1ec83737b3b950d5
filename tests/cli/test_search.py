"""`cxr-embed search` as a user meets it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_dicom
from faulty_output import Output
from lookalike_chest import chest
from running import Ran

from cxr_embed.cli import run
from cxr_embed.models.config import ModelConfig, read_model_config, ready_configs
from cxr_embed.models.outputs import chain


@pytest.fixture
def find(output: Output, do: Any) -> Any:
    def find_(query: object, *more: str, input_path: object = output.records) -> Any:
        return do("search", f"--input_path={input_path}", f"--query={query}", *more)

    return find_


@pytest.fixture
def copied(output: Output, tmp_path: Path) -> Path:
    return shutil.copytree(output.records, tmp_path / "out")


def rows(ran: Ran) -> list[list[str]]:
    assert ran.status == 0, ran.err
    heading, *lines = (line.split("\t") for line in ran.out.splitlines())
    assert heading == ["rank", "cosine", "dicom_id", "image_id"]
    return lines


def test_by_id_path_and_record(find: Any, output: Output) -> None:
    found = rows(find("c03", "--k=4"))
    assert [row[0] for row in found] == ["1", "2", "3", "4"]
    assert found[0][1:3] == ["1.000000", "copy"]
    assert "c03" not in [row[2] for row in found]
    cosines = [float(row[1]) for row in found]
    assert cosines == sorted(cosines, reverse=True)
    assert rows(find(output.images / "s1/c03.dcm", "--k=4")) == found
    assert rows(find(output.records / "s1/c03.tfrecord", "--k=4")) == found
    assert rows(find("c03", "--k=4", "--index=faiss")) == found


def test_by_an_image_file(find: Any, output: Output, tmp_path: Path) -> None:
    image = Path(shutil.copy(output.images / "s1/c03.dcm", tmp_path / "mine.dcm"))
    found = rows(find(image, "--k=2"))
    assert {row[2] for row in found} == {"c03", "copy"}
    assert {row[1] for row in found} == {"1.000000"}


def test_the_model_must_be_the_same(
    find: Any, output: Output, copied: Path, tmp_path: Path
) -> None:
    image = shutil.copy(output.images / "s1/c03.dcm", tmp_path / "mine.dcm")
    manifest = next((copied / "_runs").iterdir()) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(output.model), "/no/model"))
    ran = find(image, input_path=copied)
    assert ran.status == 2
    assert "is no longer at /no/model: pass --model_path" in ran.err
    assert rows(find(image, f"--model_path={output.model}", input_path=copied))

    other = shutil.copytree(output.model, tmp_path / "other")
    with next((other / "variables").glob("*.index")).open("ab") as file:
        file.write(b"x")
    ran = find(image, f"--model_path={other}", input_path=copied)
    assert ran.status == 2
    assert "model_sha256 changed since" in ran.err


def test_what_cannot_be_embedded_alike(
    find: Any, output: Output, copied: Path, tmp_path: Path
) -> None:
    image = shutil.copy(output.images / "s1/c03.dcm", tmp_path / "mine.dcm")
    config = copied / "_embedding_config.json"
    made = json.loads(config.read_text())
    config.write_text(json.dumps({**made, "engine": "vertex"}))
    assert "hosted endpoint" in find(image, input_path=copied).err
    config.write_text(json.dumps({**made, "rendering": "new"}))
    assert "of another version" in find(image, input_path=copied).err
    config.write_text(json.dumps({**made, "rendering": "dicom"}))
    ran = find(output.records / "s1/c03.tfrecord", input_path=copied)
    assert (ran.status, "other settings" in ran.err) == (2, True)
    config.unlink()
    assert "has no _embedding_config.json" in find(image, input_path=copied).err
    assert rows(find("c03", "--k=1", input_path=copied))


def test_an_image_that_the_model_refuses(find: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    class NoWhite(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            refusal = tf.debugging.Assert(tf.reduce_mean(image) < 0.9, ["white"])
            with tf.control_dependencies([refusal]):
                return {"embedding": tf.reshape(image, [-1, 64])}

    module = NoWhite()
    tf.saved_model.save(
        module, str(tmp_path / "model"), signatures={"serving_default": module.__call__}
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dcm").write_bytes(make_dicom(chest(1)))
    assert run.main([
        f"--input_path={tmp_path / 'in'}", f"--output_path={tmp_path / 'out'}",
        f"--model_path={tmp_path / 'model'}", "--verbosity=-1",
    ]) == 0  # fmt: skip
    white = np.full((64, 64), 4095, np.uint16)
    white[0, 0] = 0
    (tmp_path / "white.dcm").write_bytes(make_dicom(white))
    ran = find(tmp_path / "white.dcm", input_path=tmp_path / "out")
    assert ran.status == 2
    assert "white.dcm cannot be embedded: model_error" in ran.err.splitlines()[-1]


def test_mistakes(find: Any, output: Output, tmp_path: Path) -> None:
    for query, words in (("c3", "did you mean"), (output.images / "faults/torn.dcm", "truncated")):
        ran = find(query)
        assert (ran.status, ran.out) == (2, "")
        assert words in ran.err
        assert len(ran.err.splitlines()) == 1
    (tmp_path / "bad.tfrecord").write_bytes(b"torn")
    assert "is damaged" in find(tmp_path / "bad.tfrecord").err
    assert "must end in .html" in find("c03", "--html=x.txt").err
    assert "did you mean --query" in find("c03", "--querry=1").err


def test_a_terminal_gets_a_table(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = find("c03", "--k=3").out
    assert "\t" not in out
    assert "c03: an image of this output, among 21 embeddings" in out
    assert "copy" in out


def test_a_page_with_pictures(find: Any, output: Output, tmp_path: Path) -> None:
    assert find("c03", f"--html={tmp_path}/pages/c03.html").status == 0
    page = (tmp_path / "pages/c03.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 11
    assert "Geheim" not in page


def test_pictures_that_are_gone(find: Any, copied: Path, output: Output, tmp_path: Path) -> None:
    aside = output.images.rename(output.images.with_name("aside"))
    try:
        assert find("c03", f"--html={tmp_path}/c03.html", input_path=copied).status == 0
    finally:
        aside.rename(output.images)
    page = (tmp_path / "c03.html").read_text()
    assert page.count("file is gone</span>") == 11
    assert "image/jpeg" not in page


def test_configs_come_back_from_fingerprints() -> None:
    for name in ready_configs():
        config = read_model_config(name)
        again = ModelConfig.from_dict(json.loads(json.dumps(config.as_dict())))
        assert again.as_dict() == config.as_dict()
        assert chain(again) == chain(config)
    assert ModelConfig.from_dict(None) == ModelConfig()
