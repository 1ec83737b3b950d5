"""The trained EfficientNet-Lite0 of a package, read without PyTorch."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import cv2
import lite0_weights
import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_sample_image

from cxr_embed.efficientnet.export import export_model

DAISY = 985  # of ImageNet's classes, the one nearest to the flower that scikit-learn ships


@pytest.mark.slow
def test_it_knows_a_flower(tmp_path: Path) -> None:
    import tensorflow as tf

    file = tmp_path / "lite0.safetensors"
    assert lite0_weights.main([str(file)]) == 0
    made = export_model(
        tmp_path / "m", architecture="efficientnet-lite0", image_size=224, embedding_size=0,
        weights=file,
    )  # fmt: skip
    flower = load_sample_image("flower.jpg")[:, 100:527]
    pixels = cv2.resize(flower, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    signature = tf.saved_model.load(str(made.path)).signatures["serving_default"]
    embedding = signature(image=tf.constant(pixels[np.newaxis]))["embedding"].numpy()[0]
    classifier = load_file(file)
    scores = classifier["_fc.weight"] @ embedding + classifier["_fc.bias"]
    assert scores.argmax() == DAISY


def test_a_pickle_that_could_run_code_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="no part of a state dict"):
        lite0_weights.read_state_dict(BytesIO(pickle.dumps(print)))
