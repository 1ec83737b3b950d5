"""Graphs with their matrix products in bfloat16, against the same graphs in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lookalikes import cosine, save_elixr_b, save_elixr_c

from cxr_embed import models
from cxr_embed.models import ModelSettings
from cxr_embed.models.inputs import example_radiograph
from cxr_embed.models.tensorflow.graph_part import GraphPart
from cxr_embed.models.tensorflow.mixed_precision import in_bfloat16

RNG = np.random.default_rng(4)


def compare(part: GraphPart, **inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs both; returns float32's and bfloat16's results, flat."""
    import tensorflow as tf

    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return part(tensors).numpy().ravel(), in_bfloat16(part)(tensors).numpy().ravel()


def test_the_network_of_a_saved_model(small_model: Path) -> None:
    """Its convolutions lie in a function that the signature calls."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(small_model)).signatures["serving_default"]
    part = GraphPart(signature, ("image",), "embedding")
    images = RNG.random((2, 64, 64, 3), np.float32)
    exact, rounded = compare(part, image=images)
    assert rounded.dtype == np.float32
    assert 1e-4 < np.abs(rounded - exact).max() / np.abs(exact).max() < 0.1
    assert cosine(exact, rounded) > 0.999
    again = in_bfloat16(part)({"image": tf.constant(images)}).numpy().ravel()
    np.testing.assert_array_equal(again, rounded)


def test_a_part_of_a_tensorflow_1_graph(tmp_path: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(save_elixr_c(tmp_path / "c", side=160, channels=6))
    feed, fetch = "EfficientNet/grayscale_to_rgb:0", "EfficientNet/dropout/Identity:0"
    ends = [loaded.graph.as_graph_element(name) for name in (feed, fetch)]
    part = GraphPart(loaded.prune(ends[:1], ends[1:]), (feed,))
    images = RNG.random((3, 160, 160, 3), np.float32)
    exact, rounded = compare(part, **{feed: images})
    assert 0 < np.abs(rounded - exact).max() < 0.05
    assert cosine(exact, rounded) > 0.999


def test_several_inputs_keep_their_places(tmp_path: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(save_elixr_b(tmp_path / "b", channels=12))
    names = ("ids", "image_feature", "paddings")
    part = GraphPart(loaded.signatures["serving_default"], names, "img_emb")
    exact, rounded = compare(
        part,
        ids=np.full((1, 1, 128), 1, np.int32),
        image_feature=RNG.random((1, 8, 8, 12), np.float32),
        paddings=np.full((1, 1, 128), 0.5, np.float32),
    )
    assert exact.min() > 180  # 128 x 1.5, and a little
    np.testing.assert_allclose(rounded, exact, atol=0.02)


@pytest.mark.parametrize("last", ["product", "sum"])
def test_products_keep_their_names(tmp_path: Path, last: str) -> None:
    """Whether a product is the result itself, or is read by name, in a function or outside."""
    import tensorflow as tf

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(RNG.normal(size=(8, 8)).astype(np.float32))
            self.inner = tf.function(lambda x: tf.matmul(x, self.weights))

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            flow = tf.matmul(self.inner(tf.matmul(x, self.weights)), self.weights)
            return {"y": flow if last == "product" else flow + tf.reduce_sum(self.inner(x))}

    module = Model()
    path = str(tmp_path / "m")
    tf.saved_model.save(module, path, signatures={"serving_default": module.__call__})
    part = GraphPart(tf.saved_model.load(path).signatures["serving_default"], ("x",), "y")
    exact, rounded = compare(part, x=RNG.normal(size=(5, 8)).astype(np.float32))
    assert not np.array_equal(exact, rounded)
    assert cosine(exact, rounded) > 0.999


def test_a_thread_that_has_run_bfloat16_runs_float32_again(small_model: Path) -> None:
    """Threads of a pool outlive a run: the second run of a process must not get the first's."""
    exact = models.load(ModelSettings(str(small_model)))
    image = exact.fit(example_radiograph())
    expected = exact.embed([image])
    with ThreadPoolExecutor(1) as pool:
        rounded_model = models.load(ModelSettings(str(small_model), precision="bfloat16"))
        rounded = pool.submit(rounded_model.embed, [image]).result()
        again = pool.submit(models.load(ModelSettings(str(small_model))).embed, [image]).result()
    np.testing.assert_array_equal(again, expected)
    if np.array_equal(rounded, expected):
        pytest.skip("this processor does not compute in bfloat16")
