"""SavedModels of many makers, run for real by both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_embed import models
from cxr_embed.errors import UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.models.config import ModelConfig
from cxr_embed.models.fit import ModelInput

Maker = Callable[..., str]


@pytest.fixture
def make_model(tmp_path: Path) -> Maker:
    """Saves a model of one matrix product over the image's mean in each of 4 x 4 fields."""
    import tensorflow as tf

    def make(shape: tuple[int | None, ...] = (None, 8, 8, 3), dtype: Any = "float32",
             size: int = 5, name: str = "m") -> str:  # fmt: skip
        class Model(tf.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weights = tf.Variable(tf.random.stateless_normal([16, size], [1, 2]))

            @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="image")])
            def __call__(self, image: Any) -> dict[str, Any]:
                fields = tf.image.resize(tf.cast(image, tf.float32)[..., :1], [4, 4], "area")
                return {"embedding": tf.reshape(fields, [-1, 16]) @ self.weights}

        folder = str(tmp_path / name)
        model = Model()
        tf.saved_model.save(model, folder, signatures={"serving_default": model.__call__})
        return folder

    return make


def images(count: int, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), np.float32)


def test_a_plain_tf_module(make_model: Maker) -> None:
    model = models.load(ModelSettings(make_model()))
    vectors = model.embed(images(3))
    assert vectors.shape == (3, 5)
    assert vectors.dtype == np.float32
    assert (model.input, model.embedding_size, model.device) == (ModelInput(8, 8), 5, "cpu")


def test_a_keras_export(tmp_path: Path) -> None:
    import keras

    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(6)]
    )
    network.export(str(tmp_path / "k"), verbose=False)
    model = models.load(ModelSettings(str(tmp_path / "k")))
    batch = images(2)
    np.testing.assert_allclose(model.embed(batch), network(batch), rtol=1e-6)


def test_a_batch_that_the_signature_fixes_is_filled_up(make_model: Maker) -> None:
    fixed = models.load(ModelSettings(make_model((4, 8, 8, 3), name="fixed")))
    free = models.load(ModelSettings(make_model(name="free")))
    assert fixed.max_batch_size == 4
    np.testing.assert_allclose(fixed.embed(images(3)), free.embed(images(3)), rtol=1e-6)


def test_an_open_size_takes_one_radiograph_at_a_time(make_model: Maker) -> None:
    model = models.load(ModelSettings(make_model((None, None, None, 1))))
    assert model.input == ModelInput(None, None, 1)
    assert model.max_batch_size == 1
    assert model.embed(images(1, (20, 30, 1))).shape == (1, 5)


def test_an_embedding_size_that_the_signature_leaves_open_is_measured(tmp_path: Path) -> None:
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1], tf.float32)])
        def __call__(self, image: Any) -> Any:
            return tf.reshape(image, [tf.shape(image)[0], -1])

    folder, module = str(tmp_path / "m"), Model()
    tf.saved_model.save(module, folder, signatures={"serving_default": module.__call__})
    assert models.load(ModelSettings(folder)).embedding_size == 16
    with pytest.raises(UsageError, match=r"16 floats, but .* is 17"):
        models.load(ModelSettings(folder, ModelConfig(embedding_size=17)))


def test_openvino_agrees_with_tensorflow(small_model: Path) -> None:
    pytest.importorskip("openvino")
    batch = images(3, (64, 64, 3))
    reference = models.load(ModelSettings(str(small_model)))
    other = models.load(ModelSettings(str(small_model), engine="openvino"))
    assert other.embedding_size == 4096
    for a, b in zip(reference.embed(batch), other.embed(batch), strict=True):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99999


def test_an_image_has_the_same_bytes_each_time_and_nearly_so_in_any_batch(
    small_model: Path,
) -> None:
    """Runs on a CPU take one image a call, so that theirs are the same bytes."""
    model = models.load(ModelSettings(str(small_model)))
    assert model.best_batch_size == 1
    batch = images(5, (64, 64, 3))
    alone = np.concatenate([model.embed(batch[n : n + 1]) for n in range(5)])
    again = np.concatenate([model.embed(batch[n : n + 1]) for n in reversed(range(5))])[::-1]
    np.testing.assert_array_equal(again, alone)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [3, 3, 3]):
        found = model.embed(batch[order])
        assert np.abs(found - alone[order]).max() <= 1e-5 * np.abs(alone).max()


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_is_absent_is_an_error(make_model: Maker, device: str) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices(device.upper()):
        pytest.skip(f"this machine has a {device}")
    for precision in models.PRECISIONS:
        with pytest.raises(UsageError, match=f"--device={device}: TensorFlow sees no"):
            models.load(ModelSettings(make_model(), device=device, precision=precision))


@pytest.mark.parametrize("content", [None, b"", b"this is no protocol buffer"])
def test_what_is_no_saved_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(UsageError, match="--model_path"):
        models.load(ModelSettings(str(tmp_path)))
    with pytest.raises(UsageError, match="does not exist"):
        models.load(ModelSettings(str(tmp_path / "nowhere")))


def test_the_content_hash_is_of_the_numbers_not_of_the_copy(make_model: Maker) -> None:
    one, other = make_model(name="one"), make_model(size=6, name="other")
    before = models.content_hash(one)
    assert before != models.content_hash(other)
    (Path(one) / "fingerprint.pb").write_bytes(b"another random id")
    (Path(one) / "README").write_text("notes")
    assert models.content_hash(one) == before
    (Path(one) / "saved_model.pb").write_bytes(b"changed")
    assert models.content_hash(one) != before
