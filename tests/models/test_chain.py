"""Serialized examples, chains and parts of graphs, on look-alikes of the published models."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from lookalikes import cosine, save_elixr_b, save_elixr_c
from running import manifest, records, run_here, table

import cxr_embed
from cxr_embed import models
from cxr_embed.errors import UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.models.config import ModelConfig, StageConfig, read_model_config
from cxr_embed.models.tf_example import ExampleInput, fit_example
from cxr_embed.radiograph import Radiograph

FEED = "EfficientNet/grayscale_to_rgb:0"
RNG = np.random.default_rng(3)
PICTURES = [
    Radiograph(RNG.integers(0, 65536, (90, 70), np.uint16)),
    Radiograph(RNG.integers(0, 256, (33, 120), np.uint8)),
    Radiograph(np.sort(RNG.integers(0, 4000, (64, 64)).astype(np.uint16))),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the published one."""
    folder = tmp_path_factory.mktemp("cxr-foundation")
    save_elixr_c(folder / "elixr-c-v2-pooled")
    save_elixr_b(folder / "pax-elixr-b-text")
    return folder


def load(path: Path | str, config: str | ModelConfig, **settings: Any) -> Any:
    config = read_model_config(config) if isinstance(config, str) else config
    return models.load(ModelSettings(str(path), config, **settings))


def embed(model: Any, pictures: list[Radiograph]) -> np.ndarray:
    result: np.ndarray = model.embed([model.fit(picture) for picture in pictures])
    return result


def direct(published: Path, picture: Radiograph) -> dict[str, np.ndarray]:
    """Calls both models as their publisher's notebook does."""
    import tensorflow as tf

    first = tf.saved_model.load(str(published / "elixr-c-v2-pooled"))
    second = tf.saved_model.load(str(published / "pax-elixr-b-text"))
    example = fit_example(picture, ExampleInput())
    maps = first.signatures["serving_default"](input_example=tf.constant([example]))
    outputs = second.signatures["serving_default"](
        image_feature=maps["feature_maps_0"],
        ids=tf.zeros([1, 1, 128], tf.int32),
        paddings=tf.zeros([1, 1, 128], tf.float32),
    )
    return {name: value.numpy() for name, value in {**maps, **outputs}.items()}


@pytest.mark.parametrize(
    ("config", "output", "size"),
    [
        ("elixr_c_v2", "feature_maps_0", 88064),
        ("elixr_c_v2_pruned", "feature_maps_0", 88064),
        ("elixr_v2_contrastive", "all_contrastive_img_emb", 4096),
        ("elixr_v2_img_emb", "img_emb", 24576),
    ],
)
def test_a_ready_config_gives_what_a_direct_call_gives(
    published: Path, config: str, output: str, size: int
) -> None:
    model = load(published, config)
    vectors = embed(model, PICTURES[:2])
    assert vectors.shape == (2, size) == (2, model.embedding_size)
    assert vectors.dtype == np.float32
    for vector, picture in zip(vectors, PICTURES[:2], strict=True):
        assert cosine(vector, direct(published, picture)[output].ravel()) > 0.99999


def test_maps_pooled_to_a_vector(published: Path) -> None:
    vectors = embed(load(published, "elixr_c_v2_pooled_1376"), PICTURES[:1])
    maps = direct(published, PICTURES[0])["feature_maps_0"]
    assert cosine(vectors[0], maps.mean((0, 1, 2))) > 0.99999


def test_a_single_stage_may_be_named_itself(published: Path) -> None:
    inside = load(published / "elixr-c-v2-pooled", "elixr_c_v2_pooled_1376")
    outside = load(published, "elixr_c_v2_pooled_1376")
    np.testing.assert_array_equal(embed(inside, PICTURES[:1]), embed(outside, PICTURES[:1]))


def test_only_the_part_of_a_graph_takes_batches(published: Path) -> None:
    whole, part = load(published, "elixr_c_v2"), load(published, "elixr_c_v2_pruned")
    assert (whole.max_batch_size, part.max_batch_size) == (1, None)
    seen = []
    stage = part._stages[0]
    call = stage._call
    stage._call = lambda pieces: seen.extend(len(piece[FEED]) for piece in pieces) or call(pieces)
    vectors = embed(part, PICTURES)
    assert seen == [3]
    for vector, picture in zip(vectors, PICTURES, strict=True):
        assert cosine(vector, embed(whole, [picture])[0]) > 0.99999


def test_a_locked_stage_behind_a_free_one_is_fed_in_pieces(published: Path) -> None:
    pruned = read_model_config("elixr_c_v2_pruned")
    contrastive = read_model_config("elixr_v2_contrastive")
    both = ModelConfig(
        size=pruned.size, preprocessing=pruned.preprocessing, pooling="flatten",
        stages=(pruned.stages[0], contrastive.stages[1]),
    )  # fmt: skip
    vectors = embed(load(published, both), PICTURES)
    for vector, picture in zip(vectors, PICTURES, strict=True):
        expected = direct(published, picture)["all_contrastive_img_emb"].ravel()
        assert cosine(vector, expected) > 0.99999


def test_constants_are_what_the_config_says(published: Path) -> None:
    config = read_model_config("elixr_v2_img_emb")
    first, second = config.stages
    other = StageConfig(
        second.folder, input=second.input, output=second.output,
        constants=(("ids", 1.0), ("paddings", 0.5)),
    )  # fmt: skip
    changed = ModelConfig(pooling="flatten", stages=(first, other))
    zeros, ones = (embed(load(published, c), PICTURES[:1])[0] for c in (config, changed))
    np.testing.assert_allclose(ones - zeros, 128 * 1.5, atol=0.01)


def test_the_reference_model_takes_examples_too(small_model: Path) -> None:
    images = load(small_model, ModelConfig())
    examples = load(small_model, ModelConfig(signature="serialized_example"))
    assert examples.input == ExampleInput()
    assert examples.max_batch_size is None
    smooth = [PICTURES[2]]  # both shrink it, one by area, one by antialiased interpolation
    assert cosine(embed(images, smooth)[0], embed(examples, smooth)[0]) > 0.999
    vectors = embed(examples, PICTURES)
    import tensorflow as tf

    signature = tf.saved_model.load(str(small_model)).signatures["serialized_example"]
    batch = tf.constant([examples.fit(picture) for picture in PICTURES])
    np.testing.assert_array_equal(vectors, signature(input_example=batch)["embedding"])


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ([StageConfig("gone")], "gone does not exist"),
        ([StageConfig("pax-elixr-b-text")], "more than one input"),
        ([StageConfig("elixr-c-v2-pooled", output="maps")], "no output 'maps'; it has feature"),
        ([StageConfig("elixr-c-v2-pooled")] * 2, "the model cannot be run"),
        ([StageConfig("elixr-c-v2-pooled", feed="a:0", fetch="b:0")], "run from a:0 to b:0: .*a:0"),
        ([StageConfig("pax-elixr-b-text", feed="a:0", fetch="b:0")], "not a TensorFlow 1 graph"),
    ],
)  # fmt: skip
def test_stages_that_do_not_fit_are_a_users_mistake(
    published: Path, stages: list[StageConfig], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        load(published, ModelConfig(pooling="flatten", stages=tuple(stages)))


def test_openvino_says_what_it_does_not_run(published: Path) -> None:
    with pytest.raises(UsageError, match="serving_default only"):
        load(published, "elixr_c_v2", engine="openvino")
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match="OpenVINO cannot read"):
        load(published / "elixr-c-v2-pooled", ModelConfig(), engine="openvino")


def test_a_missing_op_names_the_extra(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(published / "elixr-c-v2-pooled", folder)
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"ParseExampleV2", b"SentencepieceO"))
    with pytest.raises(UsageError, match=r"cannot be loaded: Op type not registered 'Sentencep"):
        load(folder, "elixr_c_v2")
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(UsageError, match=r"cxr-embed\[cxr-foundation\]' \(Op type not.*Sentencep"):
        load(folder, "elixr_c_v2")


def test_the_content_id_covers_all_stages(published: Path, tmp_path: Path) -> None:
    config = read_model_config("elixr_v2_contrastive")
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    settings = ModelSettings(str(folder), config)
    before = models.content_id(settings)
    assert before == models.content_id(ModelSettings(str(published), config))
    for name in ("elixr-c-v2-pooled", "pax-elixr-b-text"):
        data = next((folder / name / "variables").glob("*.data-*"))
        whole = data.read_bytes()
        data.write_bytes(whole[:-4] + b"\0\0\0\1")
        assert models.content_id(settings) != before
        data.write_bytes(whole)
    assert models.content_id(settings) == before


def test_a_run_with_a_ready_config(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, 90 * number)))
    flags = {
        "input_path": tmp_path / "in", "output_path": tmp_path / "out", "model_path": published,
        "model_config": "elixr_v2_contrastive",
    }  # fmt: skip
    ran = run_here(capsys, **flags)
    assert ran.status == 0, ran.err
    assert "PNGs in serialized examples in, 4096 floats out" in ran.err
    assert len(records(tmp_path / "out")) == 3
    picture = cxr_embed.read_radiograph(str(tmp_path / "in/1.dcm"))
    expected = direct(published, picture)["all_contrastive_img_emb"].ravel()
    found = cxr_embed.load_embeddings(str(tmp_path / "out")).values[1]
    assert cosine(found, expected) > 0.99999
    assert manifest(tmp_path / "out")["fingerprint"]["model_config"]["pooling"] == "flatten"
    assert "already there  3" in run_here(capsys, **flags).out
    assert run_here(capsys, **(flags | {"batch_size": 2})).status == 0  # nothing left to compute
    other = run_here(capsys, **(flags | {"model_config": "elixr_v2_img_emb"}))
    assert other.status == 2
    assert "model_config" in other.err
    assert table(tmp_path / "out", "failures") == []
