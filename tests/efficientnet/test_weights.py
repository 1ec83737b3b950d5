"""Random weights: the same everywhere, and alive."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from cxr_embed.efficientnet.architecture import ARCHITECTURES, weight_layout
from cxr_embed.efficientnet.weights import (
    Weights,
    check_weights,
    draw_uniform,
    orthogonal_projection,
    random_weights,
)
from cxr_embed.errors import UsageError

B0 = ARCHITECTURES["efficientnet-b0"]
SIZE = 64


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(B0, image_size=SIZE, seed=0)


def embed(weights: Weights, images: np.ndarray) -> np.ndarray:
    from cxr_embed.efficientnet.graph import FoldedEfficientNet

    return FoldedEfficientNet(weights.architecture, dict(weights.arrays))(images).numpy()


def radiographs(count: int, seed: int) -> np.ndarray:
    from cxr_embed.efficientnet.calibration import synthetic_radiographs

    return synthetic_radiographs(count, SIZE, seed=seed)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosines of all pairs."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]


def test_a_drawn_tensor_is_the_same_bits_on_every_machine() -> None:
    drawn = draw_uniform("stem/kernel", (3, 3, 3, 32), std=0.5, seed=0)
    assert drawn.dtype == np.float32
    digest = hashlib.sha256(drawn.astype("<f4").tobytes()).hexdigest()
    assert digest[:16] == "59cd60f6235fc1fb"


def test_a_drawn_tensor_has_the_spread_that_was_asked_for() -> None:
    drawn = draw_uniform("any", (400, 500), std=0.25, seed=3)
    assert drawn.std() == pytest.approx(0.25, rel=0.01)
    assert abs(drawn.mean()) < 0.003


def test_streams_differ_by_name_and_by_seed() -> None:
    drawn = [
        draw_uniform(name, (100,), std=1.0, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("a", 1), ("a", -1))
    ]
    assert len({values.tobytes() for values in drawn}) == 4


def test_weights_fill_the_layout(weights: Weights) -> None:
    assert {name: array.shape for name, array in weights.arrays.items()} == weight_layout(B0)
    assert {array.dtype for array in weights.arrays.values()} == {np.dtype(np.float32)}
    assert (weights.source, weights.trained) == ("random", False)


def test_the_same_seed_gives_the_same_weights(weights: Weights) -> None:
    again = random_weights(B0, image_size=SIZE, seed=0)
    assert all(np.array_equal(again.arrays[name], weights.arrays[name]) for name in weights.arrays)
    other = random_weights(B0, image_size=SIZE, seed=1)
    assert not np.array_equal(other.arrays["stem/kernel"], weights.arrays["stem/kernel"])


def test_different_radiographs_get_clearly_different_vectors(weights: Weights) -> None:
    """Others than those that batch norm was calibrated on."""
    vectors = embed(weights, radiographs(6, seed=99))
    assert np.isfinite(vectors).all()
    assert cosines(vectors).max() < 0.9
    assert cosines(vectors - vectors.mean(axis=0)).max() < 0.6


def test_every_feature_is_alive(weights: Weights) -> None:
    vectors = embed(weights, radiographs(8, seed=5))
    assert (vectors.std(axis=0) > 1e-3).all()


def test_no_image_blows_the_network_up(weights: Weights) -> None:
    """Plain random networks with calibrated batch norm are chaotic: see `weights`."""
    ordinary = np.linalg.norm(embed(weights, radiographs(4, seed=5)), axis=1)
    source = np.random.default_rng(0)
    odd = np.stack(
        [
            np.zeros((SIZE, SIZE, 3)),
            np.ones((SIZE, SIZE, 3)),
            source.random((SIZE, SIZE, 3)),
            np.indices((SIZE, SIZE, 3)).sum(axis=0) % 2,
            1.0 - radiographs(1, seed=5)[0],
        ]
    ).astype(np.float32)
    norms = np.linalg.norm(embed(weights, odd), axis=1)
    assert norms.max() < 4 * ordinary.max()
    assert norms.min() > ordinary.min() / 4


def test_a_small_change_stays_small(weights: Weights) -> None:
    """Rounding to 8 bits moves a vector far less than another patient does."""
    images = radiographs(6, seed=11)
    vectors = embed(weights, images)
    rounded = embed(weights, np.round(images * 255) / np.float32(255))
    between = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(rounded - vectors, axis=1).max() < 0.15 * between


def test_synthetic_radiographs_fill_the_range() -> None:
    images = radiographs(3, seed=0)
    assert images.shape == (3, SIZE, SIZE, 3)
    assert images.dtype == np.float32
    assert images.min(axis=(1, 2, 3)) == pytest.approx([0.0] * 3)
    assert images.max(axis=(1, 2, 3)) == pytest.approx([1.0] * 3)
    assert np.array_equal(images[..., 0], images[..., 2])


def test_a_shrinking_projection_has_orthogonal_columns_and_keeps_distances() -> None:
    kernel = orthogonal_projection(640, 400).astype(np.float64)
    assert kernel.T @ kernel == pytest.approx(np.eye(400) * (640 / 400), abs=1e-5)


def test_a_growing_projection_has_orthonormal_rows() -> None:
    kernel = orthogonal_projection(320, 1024).astype(np.float64)
    assert kernel @ kernel.T == pytest.approx(np.eye(320), abs=1e-5)


def test_the_reference_projection_is_quick_and_keeps_distances() -> None:
    started = time.monotonic()
    kernel = orthogonal_projection(5504, 4096, seed=0)
    assert time.monotonic() - started < 10
    assert kernel.dtype == np.float32
    # Features like a real network's: positive, sparse, correlated.
    source = np.random.default_rng(0)
    features = np.maximum(source.normal(size=(12, 40)) @ source.normal(size=(40, 5504)), 0)
    difference = features[:, None] - features[None]
    pairs = np.triu_indices(12, 1)
    before = np.linalg.norm(difference[pairs], axis=1)
    after = np.linalg.norm(difference[pairs] @ kernel, axis=1)
    assert after / before == pytest.approx(np.ones(len(before)), abs=0.03)


def test_another_seed_gives_another_projection() -> None:
    first, second = (orthogonal_projection(64, 32, seed=seed) for seed in (0, 1))
    assert not np.allclose(first, second)


def test_weights_of_another_network_are_refused_in_one_line() -> None:
    shapes = dict(weight_layout(B0))
    del shapes["head/kernel"]
    shapes["stem/kernel"] = (3, 3, 3, 40)
    shapes["something.else"] = (1,)
    with pytest.raises(UsageError) as caught:
        check_weights(B0, shapes, source="--weights b3.pth")
    message = str(caught.value)
    assert "--weights b3.pth" in message
    assert "1 missing (head/kernel)" in message
    assert "1 unexpected (something.else)" in message
    assert "stem/kernel (3, 3, 3, 40) instead of (3, 3, 3, 32)" in message
    assert "\n" not in message
