"""How much of a head's logit is the network's."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_embed.heads import combining
from cxr_embed.heads.calibration import Calibration

RNG = np.random.default_rng(0)
LABELS = (RNG.random(600) < 0.3).astype(float)


def _scores(distance: float) -> np.ndarray:
    return 5 * (RNG.standard_normal(600) + distance * LABELS) - 2


def test_a_better_network_gets_all_the_weight_and_a_useless_one_none() -> None:
    good, useless = _scores(2.0), _scores(0.0)
    assert combining.choose(useless, good, LABELS, "none").share > 0.95
    assert combining.choose(good, useless, LABELS, "none").share < 0.01


def test_two_parts_that_know_different_things_are_both_used() -> None:
    assert 0 < combining.choose(_scores(1.0), _scores(1.0), LABELS, "none").share < 1


def test_what_chance_explains_goes_to_the_linear_part() -> None:
    """On 12 images a network that is a little better has proved little."""
    linear = np.linspace(-1, 1, 12)
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1.0])
    network = linear + 0.2 * (2 * labels - 1)
    assert combining.choose(linear, network, labels, "none").share < 0.5


@pytest.mark.parametrize("share", combining.SHARES)
def test_a_mixture_is_of_parts_of_equal_spread(share: float) -> None:
    linear, network = RNG.standard_normal(100) * 0.01 + 3, RNG.standard_normal(100) * 50 - 7
    found = combining.mix(linear, network, share)
    logits = found.apply(linear, network)

    def plain(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / x.std()

    wanted = (1 - share) * plain(linear) + share * plain(network)
    assert np.corrcoef(logits, wanted)[0, 1] == pytest.approx(1, abs=1e-9)
    if share in (0, 1):  # the one part, as it is
        np.testing.assert_allclose(logits, network if share else linear, atol=1e-9)
    by = found.calibrated(Calibration(0.5, 1.0)).apply(linear, network)
    np.testing.assert_allclose(by, 0.5 * logits + 1)
