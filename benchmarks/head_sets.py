"""Synthetic embeddings of different structure, with labels and splits, for the quality of heads.

Each set is drawn from its name and a seed. Their truth is known to be linear or not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True)
class HeadSet:
    """One set.

    Attributes:
        values: float32 (n, d).
        labels: float32 (n, heads), NaN where unknown.
        splits: rows of the training, tune and test split.
    """

    values: np.ndarray
    labels: np.ndarray
    splits: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How a set is drawn.

    Attributes:
        structure: in a few words.
        sizes: images in the training, tune and test split.
        draw: from a generator and a number of images to values and labels.
        is_linear: whether no classifier can be much better than a linear one.
    """

    structure: str
    sizes: tuple[int, int, int]
    draw: Callable[[Rng, int], tuple[np.ndarray, np.ndarray]]
    is_linear: bool = True


def make(name: str, seed: int) -> HeadSet:
    """Draws a set of RECIPES."""
    recipe = RECIPES[name]
    train, tune, test = recipe.sizes
    n = train + tune + test
    values, labels = recipe.draw(np.random.default_rng([seed, zlib.crc32(name.encode())]), n)
    labels = labels.reshape(n, -1).astype(np.float32)
    first, second, third = np.split(np.arange(n), [train, train + tune])
    labels[third] = np.nan_to_num(labels[third])
    return HeadSet(values.astype(np.float32), labels, (first, second, third))


def _chance(rng: Rng, logits: np.ndarray) -> np.ndarray:
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)


def _direction(rng: Rng, size: int, length: float) -> np.ndarray:
    direction = rng.standard_normal(size)
    return np.asarray(direction * length / np.linalg.norm(direction))


def _clouds(size: int, distance: float, positives: float = 0.5) -> Callable[..., tuple]:
    def draw(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (rng.random(n) < positives).astype(float)
        noise = rng.standard_normal((n, size))
        return noise + labels[:, None] * _direction(rng, size, distance), labels

    return draw


def _low_rank(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    factors = rng.standard_normal((n, 12))
    values = factors @ rng.standard_normal((12, 1024)) + 0.3 * rng.standard_normal((n, 1024))
    return values, _chance(rng, factors @ _direction(rng, 12, 2.0))


def _large_mean(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    values, labels = _clouds(512, 2.0, 0.3)(rng, n)
    return values * rng.uniform(0.2, 2, 512) + 100 * rng.standard_normal(512), labels


def _heavy_tails(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = (rng.random(n) < 0.5).astype(float)
    return rng.standard_t(2, (n, 256)) + labels[:, None] * _direction(rng, 256, 3.0), labels


def _label_noise(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    values, labels = _clouds(256, 3.0)(rng, n)
    return values, np.where(rng.random(n) < 0.25, 1 - labels, labels)


def _correlated(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    rotation, _ = np.linalg.qr(rng.standard_normal((384, 384)))
    hidden = rng.standard_normal((n, 384))
    direction = np.concatenate((_direction(rng, 40, 2.0), np.zeros(344)))
    return (hidden / np.arange(1, 385)) @ rotation, _chance(rng, hidden @ direction)


def _noise_floats(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    hidden = rng.standard_normal((n, 512))
    direction = np.concatenate((_direction(rng, 30, 2.0), np.zeros(482)))
    return hidden * np.where(np.arange(512) < 30, 3.0, 0.1), _chance(rng, hidden @ direction)


def _several_heads(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    factors = rng.standard_normal((n, 20))
    values = np.maximum(factors @ rng.standard_normal((20, 512)) + rng.standard_normal((n, 512)), 0)
    logits = factors @ rng.standard_normal((20, 3)) / 2 - np.array([0, 1, 2.5])
    labels = _chance(rng, logits)
    labels[: n // 3][rng.random((n // 3, 3)) < 0.3] = np.nan
    return values, labels


def _published_size(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    factors = rng.standard_normal((n, 40))
    spread = factors / np.sqrt(np.arange(1, 41))
    noise = 0.5 * rng.standard_normal((n, 4096))
    values = np.tanh(spread @ rng.standard_normal((40, 4096)) + noise)
    return values, _chance(rng, factors @ _direction(rng, 40, 2.0) - 1)


def _product(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    factors = rng.standard_normal((n, 6))
    values = factors @ rng.standard_normal((6, 256)) + 0.5 * rng.standard_normal((n, 256))
    return values, _chance(rng, 3 * factors[:, 0] * factors[:, 1] + 1.5 * factors[:, 2])


def _product_of_few(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    factors = rng.standard_normal((n, 4))
    values = factors @ rng.standard_normal((4, 128)) + 0.3 * rng.standard_normal((n, 128))
    return values, _chance(rng, 4 * factors[:, 0] * factors[:, 1])


def _radius(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    factors = rng.standard_normal((n, 5))
    values = np.maximum(factors @ rng.standard_normal((5, 512)), 0)
    values += 0.3 * rng.standard_normal((n, 512))
    return values, _chance(rng, 2 * ((factors[:, :3] ** 2).sum(axis=1) - 2.5))


RECIPES = {
    "800 images": Recipe("two clouds, best possible 0.802", (800, 200, 4000), _clouds(64, 1.2)),
    "more floats than images": Recipe("two clouds", (300, 100, 4000), _clouds(2048, 3.0)),
    "64 images": Recipe("two clouds", (64, 32, 4000), _clouds(768, 4.0)),
    "20,000 images": Recipe("two clouds", (20_000, 2000, 4000), _clouds(512, 1.6, 0.2)),
    "1 % positives": Recipe("two clouds", (6000, 1500, 12_000), _clouds(256, 2.5, 0.01)),
    "low rank": Recipe("12 factors", (600, 150, 4000), _low_rank),
    "large common mean": Recipe("means of 100 deviations", (800, 200, 4000), _large_mean),
    "heavy tails": Recipe("Student's t, 2 degrees", (800, 200, 4000), _heavy_tails),
    "label noise": Recipe("25 % of the labels turned", (800, 200, 4000), _label_noise),
    "correlated floats": Recipe("deviations from 1 to 1/384", (1200, 300, 4000), _correlated),
    "floats of noise": Recipe("30 floats of 512 hold all", (800, 200, 4000), _noise_floats),
    "several heads": Recipe("3 heads, blanks, ReLU", (1200, 300, 3000), _several_heads),
    "published size": Recipe("40 factors, tanh", (1000, 250, 3000), _published_size),
    "product": Recipe("product of two factors", (4000, 1000, 4000), _product, False),
    "product, few": Recipe("product of two factors", (400, 100, 4000), _product_of_few, False),
    "radius": Recipe("distance from the middle, ReLU", (1500, 400, 4000), _radius, False),
}
