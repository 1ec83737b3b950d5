"""Faults that were made are found, and others are not."""

from __future__ import annotations

import numpy as np
import pytest
from lookalike_chest import chest

from cxr_embed.report import oddities


def pictures() -> dict[int, np.ndarray]:
    return {number: (chest(number) >> 8).astype(np.uint8) for number in range(20)}


def test_upright_pictures_are_fine() -> None:
    assert oddities.pixel_oddities(pictures()) == {}


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_ones(quarters: int) -> None:
    found = pictures()
    found[5] = np.rot90(found[5], quarters)  # anticlockwise, to be turned back clockwise
    assert oddities.pixel_oddities(found) == {5: [f"rotated_{90 * quarters}"]}


def test_inverted_and_blank_ones() -> None:
    found = pictures()
    found[2] = 255 - found[2]
    found[9] = np.full((50, 40), 7, np.uint8)
    assert oddities.pixel_oddities(found) == {2: ["inverted"], 9: ["blank"]}
    for codes in oddities.pixel_oddities(found).values():
        assert set(codes) <= set(oddities.ODDITIES)


def test_few_pictures_have_no_average() -> None:
    found = {key: picture for key, picture in pictures().items() if key < 5}
    found[2] = 255 - found[2]
    assert oddities.pixel_oddities(found) == {}
    assert oddities.pixel_oddities({}) == {}


def test_black_frames_are_not_blank() -> None:
    framed = np.zeros((200, 200), np.uint8)
    framed[60:140, 60:140] = np.arange(6400).reshape(80, 80) % 251
    assert not oddities.is_blank(framed)


def test_far_ones() -> None:
    similarities = np.random.default_rng(0).normal(0.8, 0.02, 100)
    similarities[[3, 8]] = 0.2, 0.4
    np.testing.assert_array_equal(np.flatnonzero(oddities.far_from_others(similarities)), [3, 8])
    assert not oddities.far_from_others(similarities[:10]).any()
    assert not oddities.far_from_others(np.ones(50)).any()
