"""Radiographs to PNGs in serialized examples, as TensorFlow reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cxr_embed.models.tf_example import ExampleInput, encode_png, fit_example
from cxr_embed.radiograph import Radiograph

RNG = np.random.default_rng(0)
SIXTEEN = RNG.integers(0, 65536, (31, 17), np.uint16)
EIGHT = RNG.integers(0, 256, (8, 70), np.uint8)


@pytest.mark.parametrize("pixels", [SIXTEEN, EIGHT, SIXTEEN[:1], EIGHT[:, :1], SIXTEEN.T])
@pytest.mark.parametrize("compression", [0, 1, 6])
def test_a_png_holds_the_pixels(pixels: np.ndarray, compression: int) -> None:
    import tensorflow as tf

    png = encode_png(pixels, compression)
    with Image.open(io.BytesIO(png)) as image:  # Pillow checks the checksums
        image.load()
        np.testing.assert_array_equal(np.asarray(image), pixels)
    read = tf.io.decode_png(png, dtype=pixels.dtype.name)[:, :, 0]
    np.testing.assert_array_equal(read, pixels)


def test_compression_pays_and_storing_is_quick_to_predict() -> None:
    smooth = np.add.outer(np.arange(500), np.arange(400)).astype(np.uint16) * 60
    assert len(encode_png(smooth, 6)) < smooth.nbytes / 20
    assert smooth.nbytes < len(encode_png(smooth, 0)) < smooth.nbytes + 1500


@pytest.mark.parametrize("size", [(1, 1), (3056, 300)])  # lengths of one, two and three bytes
def test_tensorflow_parses_the_example(size: tuple[int, int]) -> None:
    import tensorflow as tf

    pixels = np.resize(SIXTEEN, size)
    example = tf.train.Example.FromString(fit_example(Radiograph(pixels), ExampleInput()))
    features = example.features.feature
    assert set(features) == {"image/encoded", "image/format"}
    assert features["image/format"].bytes_list.value == [b"png"]
    (png,) = features["image/encoded"].bytes_list.value
    np.testing.assert_array_equal(tf.io.decode_png(png, dtype=tf.uint16)[:, :, 0], pixels)
    again = tf.train.Example.FromString(example.SerializeToString(deterministic=True))
    assert again == example


def test_a_config_may_make_it_smaller() -> None:
    import tensorflow as tf

    def sent(wanted: ExampleInput) -> Image.Image:
        example = tf.train.Example.FromString(fit_example(Radiograph(SIXTEEN), wanted))
        png = example.features.feature["image/encoded"].bytes_list.value[0]
        return Image.open(io.BytesIO(png))

    assert sent(ExampleInput(size=(10, 20))).size == (20, 10)
    upper = sent(ExampleInput(6, bits=8))
    np.testing.assert_array_equal(np.asarray(upper), SIXTEEN >> 8)
    # As TensorFlow itself cuts a 16-bit PNG that is read as uint8.
    cut = tf.io.decode_png(encode_png(SIXTEEN, 0), dtype=tf.uint8)[:, :, 0]
    np.testing.assert_array_equal(np.asarray(upper), cut)
