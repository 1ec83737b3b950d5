"""The 95 % intervals hold the truth in 93 to 97 % of 1,000 synthetic sets of a few patients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from cxr_embed.heads import intervals, metrics

SETS = 1000
RESAMPLES = 100


class World(NamedTuple):
    """What sets are drawn from: images of a patient share the disease and the score in part."""

    patients: int
    rarity: float
    likeness: float = 1.0
    images: int = 3

    def draw(self, rng: np.random.Generator, patients: int) -> tuple[np.ndarray, ...]:
        """Returns labels, probabilities and patients of some images."""
        groups = np.repeat(np.arange(patients), 1 + rng.poisson(self.images - 1, patients))
        noise = rng.standard_normal((2, len(groups)))
        shared = rng.standard_normal((2, patients))[:, groups]
        liability = self.likeness * shared[0] + noise[0]
        labels = (liability > self.rarity * np.hypot(1, self.likeness)).astype(np.float64)
        logits = -1 + 0.7 * (shared[1] + noise[1]) + 1.2 * labels
        return labels, 1 / (1 + np.exp(-logits)), groups


def covered(world: World, names: tuple[str, ...]) -> dict[str, float]:
    """Returns how often each figure's interval holds its value in 300,000 patients."""

    def figures_of(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        ranking = metrics.Ranking(labels, scores)
        found = {
            "auroc": ranking.auroc,
            "auprc": ranking.auprc,
            "brier": lambda weights: metrics.brier(labels, scores, weights),
        }
        return {name: found[name] for name in names}

    labels, scores, _ = world.draw(np.random.default_rng(0), 300_000)
    truth = {name: figure(None) for name, figure in figures_of(labels, scores).items()}
    hits = dict.fromkeys(names, 0)
    for number in range(SETS):
        labels, scores, groups = world.draw(np.random.default_rng([1, number]), world.patients)
        figures = figures_of(labels, scores)
        deciding = intervals.deciding_patients(labels, groups)
        found = intervals.bootstrap(
            lambda weights, figures=figures: {n: f(weights) for n, f in figures.items()},
            groups, RESAMPLES, number,
            {"auroc": deciding, "auprc": deciding, "brier": world.patients},
        )  # fmt: skip
        for name, (_, low, high) in found.items():
            hits[name] += low <= truth[name] <= high
    return {name: count / SETS for name, count in hits.items()}


def test_an_auroc_of_60_patients() -> None:
    assert 0.93 <= covered(World(60, 0.5), ("auroc",))["auroc"] <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(100, 1.3), id="100 patients, a tenth of the images positive"),
        pytest.param(World(80, 0.8, 3.0, 6), id="many images that are much alike"),
    ],
)
def test_auroc_average_precision_and_brier_score(world: World) -> None:
    found = covered(world, ("auroc", "auprc", "brier"))
    assert all(0.93 <= share <= 0.97 for share in found.values()), found
