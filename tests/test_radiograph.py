"""The value that reading gives."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from cxr_embed.radiograph import InputFacts, Radiograph

FACTS = InputFacts(9_000_000_000, "0a1b2c3d")


def test_the_source_survives_new_pixels() -> None:
    radiograph = Radiograph(np.zeros((4, 5), np.uint8), ["multiple_windows"], source=FACTS)
    cropped = dataclasses.replace(radiograph, pixels=radiograph.pixels[:2])
    assert cropped.source == FACTS
    assert cropped.warnings == ["multiple_windows"]


def test_reading_leaves_the_source_to_its_caller() -> None:
    assert Radiograph(np.zeros((4, 5), np.uint8)).source is None


def test_a_pickle_is_the_pixels_and_little_else() -> None:
    radiograph = Radiograph(np.zeros((400, 500), np.uint16), source=FACTS)
    data = pickle.dumps(radiograph, protocol=pickle.HIGHEST_PROTOCOL)
    assert len(data) < radiograph.pixels.nbytes + 500
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.pixels, radiograph.pixels)
    assert again.source == FACTS


def test_there_is_room_for_nothing_else() -> None:
    with pytest.raises(AttributeError):
        Radiograph(np.zeros((4, 5), np.uint8)).patient = "x"  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        FACTS.bytes = 3  # type: ignore[misc]
