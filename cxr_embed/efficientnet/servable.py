"""The exported TensorFlow module: the network with its two serving signatures.

Importing this module loads TensorFlow.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import tensorflow as tf

from cxr_embed.efficientnet.architecture import Architecture, FloatArray
from cxr_embed.efficientnet.graph import FoldedEfficientNet, Tensor

_ENCODED = "image/encoded"
_UINT16_MAX = 65535.0


class EmbeddingModule(tf.Module):
    """An embedding network with two input signatures, for `tf.saved_model.save`.

    Args:
        architecture: the network.
        weights: arrays by name as in `weight_layout`; emptied, see `FoldedEfficientNet`.
        image_size: side of the square input in pixels.

    Attributes:
        embed_images: concrete function of `image`, float32 (N, H, W, 3) in 0..1.
        embed_examples: concrete function of `input_example`, string (N,).
        Both return `{"embedding": float32 (N, size)}`.
    """

    def __init__(
        self, architecture: Architecture, weights: MutableMapping[str, FloatArray], image_size: int
    ) -> None:
        super().__init__(name="cxr_embed")
        self.network = FoldedEfficientNet(architecture, weights)
        self.image_size = image_size
        shape = [None, image_size, image_size, 3]
        self.embed_images = tf.function(self._embed_images).get_concrete_function(
            tf.TensorSpec(shape, tf.float32, name="image")
        )
        self.embed_examples = tf.function(self._embed_examples).get_concrete_function(
            tf.TensorSpec([None], tf.string, name="input_example")
        )

    def _embed_images(self, image: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.network(image)}

    def _embed_examples(self, input_example: Tensor) -> dict[str, Tensor]:
        features = {_ENCODED: tf.io.FixedLenFeature([], tf.string)}
        encoded = tf.io.parse_example(input_example, features)[_ENCODED]
        # One image at a time, since the images of a batch may differ in size.
        side = self.image_size
        grey = tf.map_fn(
            self._read_png, encoded, fn_output_signature=tf.TensorSpec([side, side, 1], tf.float32)
        )
        # Calls the other signature's function, so that the network's graph is stored once.
        return self.embed_images(tf.tile(grey, [1, 1, 1, 3]))

    def _read_png(self, encoded: Tensor) -> Tensor:
        """Returns (H, W, 1) float32 in 0..1."""
        # With 16 bits, the decoder returns 257 v for an 8-bit value v, and 257 v / 65535 = v / 255.
        # Both depths are therefore scaled by their full range.
        pixels = tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)
        grey = tf.cast(pixels, tf.float32) / _UINT16_MAX
        side = [self.image_size, self.image_size]
        return tf.ensure_shape(tf.image.resize(grey, side, antialias=True), [*side, 1])
