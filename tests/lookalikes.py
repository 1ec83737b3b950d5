"""Small models with the signatures, names, types, shapes and batch lock of published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SIDE, PLACES, CHANNELS = 1280, 40, 1376


def save_elixr_c(folder: Path, side: int = SIDE, channels: int = CHANNELS) -> str:
    """Saves a TensorFlow 1 graph like elixr-c-v2-pooled: one serialized example, 8 x 8 maps."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    rng = np.random.default_rng(1)
    with tf.Graph().as_default(), tf1.Session() as session:
        example = tf1.placeholder(tf.string, [1], name="input_example")
        parsed = tf1.parse_example(example, {"image/encoded": tf1.FixedLenFeature([], tf.string)})
        image = tf.io.decode_png(tf.reshape(parsed["image/encoded"], []), 1, tf.uint16)
        image = tf1.image.resize_bilinear(image[tf.newaxis], [side, side])
        low, high = tf.reduce_min(image), tf.reduce_max(image)
        image = (image - low) / (high - low)
        with tf1.name_scope("EfficientNet/"):
            grey = tf.tile(image, [1, 1, 1, 3], name="grayscale_to_rgb")
            kernel = tf1.get_variable(
                "stem", initializer=rng.normal(size=(4, 4, 3, channels)).astype(np.float32)
            )
            stride = side // PLACES
            maps = tf.nn.conv2d(grey, kernel, stride, "SAME")
            with tf1.name_scope("EfficientNet/dropout/"):
                maps = tf.identity(tf.nn.tanh(maps), name="Identity")
        pooled = tf.nn.avg_pool2d(maps, 5, 5, "VALID")
        # The published graph is written for one image: this is where more break.
        pooled = tf.reshape(pooled, [1, 8, 8, channels], name="feature_maps_0")
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(
            session, str(folder), {"input_example": example}, {"feature_maps_0": pooled}
        )
    return str(folder)


def save_elixr_b(folder: Path | str, channels: int = CHANNELS, *, with_text: bool = False) -> str:
    """Saves a model like pax-elixr-b-text: three inputs, three outputs, all for one image.

    With text, it has an op of tensorflow-text, which has to be imported before.
    """
    import tensorflow as tf

    class QFormer(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            normal = tf.random.stateless_normal
            self.embed = tf.Variable(normal([channels, 768], [1, 2]) / channels**0.5)
            self.project = tf.Variable(normal([768, 128], [3, 4]))

        @tf.function(
            input_signature=[
                tf.TensorSpec([1, 8, 8, channels], tf.float32, name="image_feature"),
                tf.TensorSpec([1, 1, 128], tf.int32, name="ids"),
                tf.TensorSpec([1, 1, 128], tf.float32, name="paddings"),
            ]
        )
        def __call__(self, image_feature: Any, ids: Any, paddings: Any) -> dict[str, Any]:
            text = tf.cast(ids, tf.float32) + paddings
            if with_text:
                import tensorflow_text

                words = tf.strings.as_string(ids)[0, 0, :1]
                text += 0 * tf.cast(len(tensorflow_text.normalize_utf8(words)), tf.float32)
            image = tf.reshape(image_feature, [1, 32, 2, channels])[:, :, 0] @ self.embed
            image += tf.reduce_sum(text)  # so that other values than zeros would be seen
            contrastive = tf.math.l2_normalize(image @ self.project, -1)
            return {
                "img_emb": image,
                "all_contrastive_img_emb": contrastive,
                "contrastive_txt_emb": text[0],
            }

    module = QFormer()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    return str(folder)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the cosine between two vectors."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
