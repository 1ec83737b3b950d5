"""What a signature tells a launching process, against what the loaded model says."""

from __future__ import annotations

import shutil
from pathlib import Path

import lookalikes
import pytest

from cxr_embed import models
from cxr_embed.errors import UsageError
from cxr_embed.models.config import ModelConfig, read_model_config
from cxr_embed.models.outline import Outline, outline


def assert_same(settings: models.ModelSettings) -> None:
    told, loaded = outline(settings), models.load(settings)
    assert isinstance(told, Outline)
    for name in ("input", "embedding_size", "max_batch_size", "best_batch_size"):
        assert getattr(told, name) == getattr(loaded, name), name


def test_it_is_what_the_loaded_model_says(small_model: Path) -> None:
    assert_same(models.ModelSettings(str(small_model), device="cpu"))
    config = ModelConfig(signature="serialized_example")
    assert_same(models.ModelSettings(str(small_model), config, device="cpu"))


def test_the_weights_are_not_read(small_model: Path, tmp_path: Path) -> None:
    shutil.copy(small_model / "saved_model.pb", tmp_path)
    told = outline(models.ModelSettings(str(tmp_path), device="gpu"))
    assert told.embedding_size == 4096
    assert told.device == "gpu"
    assert told.best_batch_size > 1


def test_a_graph_that_says_too_little_is_loaded(tmp_path: Path) -> None:
    import tensorflow as tf

    class Open(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            size = tf.reduce_prod(tf.shape(image)[1:])  # known to nobody before it runs
            return {"embedding": tf.reshape(image, tf.stack([-1, size]))}

    module = Open()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.__call__})
    told = outline(models.ModelSettings(str(tmp_path), device="gpu"))
    assert told.embedding_size == 64


def test_published_chains(tmp_path: Path) -> None:
    lookalikes.save_elixr_c(tmp_path / "elixr-c-v2-pooled", side=80, channels=8)
    lookalikes.save_elixr_b(tmp_path / "pax-elixr-b-text", channels=8)
    config = read_model_config("elixr_v2_contrastive")
    told = outline(models.ModelSettings(str(tmp_path), config))
    assert told.embedding_size == 4096
    assert (
        told.max_batch_size
        == models.load(models.ModelSettings(str(tmp_path), config)).max_batch_size
    )


def test_no_model_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no saved_model"):
        outline(models.ModelSettings(str(tmp_path)))
    (tmp_path / "saved_model.pb").write_bytes(b"rubbish")
    with pytest.raises(UsageError, match="cannot be read"):
        outline(models.ModelSettings(str(tmp_path)))
