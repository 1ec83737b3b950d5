"""Published models get the input that their own code makes of the same radiographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import originals
import pytest

import cxr_embed
from cxr_embed.models.config import read_model_config
from cxr_embed.models.fit import ModelInput, fit_image
from cxr_embed.models.outputs import chain
from cxr_embed.models.signature import TensorSpec, image_input, wire
from cxr_embed.radiograph import Radiograph

pytestmark = pytest.mark.convert


def hard(rows: int, columns: int, dtype: type) -> np.ndarray:
    """Noise with black and white areas: worse than any radiograph."""
    random = np.random.default_rng(rows)
    pixels = random.integers(0, np.iinfo(dtype).max, (rows, columns), dtype, endpoint=True)
    pixels[100:300, 50:400] = np.iinfo(dtype).max
    pixels[400:700, 300:500] = 0
    return pixels


@pytest.fixture(scope="module")
def radiographs(real_radiographs: dict[str, Path]) -> dict[str, Radiograph]:
    real = {
        name: cxr_embed.read_radiograph(real_radiographs[name])
        for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm")
    }
    made = {
        # Half of what is cut off is a whole number and a half for some of the sizes.
        "wide": hard(777, 1001, np.uint16),
        "tall": hard(1531, 601, np.uint8),
        "small": hard(701, 523, np.uint16)[400:600, 250:],
    }
    return real | {name: Radiograph(pixels) for name, pixels in made.items()}


def wanted(config: str, channels: int = 3, **changes: Any) -> ModelInput:
    """The input of a model with this ready config, with some values changed."""
    chosen = dataclasses.replace(read_model_config(config), **changes)
    inputs = {"image": TensorSpec("float32", (None, None, None, channels))}
    outputs = {"embedding": TensorSpec("float32", (None, None))}
    found = image_input(wire(inputs, outputs, chain(chosen)[0]), chosen)
    assert isinstance(found, ModelInput)
    return found


def fitted(radiograph: Radiograph, model_input: ModelInput) -> np.ndarray:
    """Channels first, as the originals have them."""
    return fit_image(radiograph, model_input).transpose(2, 0, 1)


def steps(found: np.ndarray, expected: np.ndarray, span: float) -> np.ndarray:
    """The differences in 255ths of the model's range."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    return np.abs(found - expected) / span * 255


@pytest.mark.parametrize(
    ("config", "original", "span"),
    [
        ("rad_dino", originals.rad_dino, 1 / 0.2583),
        ("medsiglip", originals.medsiglip, 2.0),
        ("biomedclip", originals.biomedclip, 1 / 0.26130258),
    ],
)
def test_models_of_8_bit_images_get_the_same_pixels(
    radiographs: dict[str, Radiograph],
    config: str,
    original: Callable[[np.ndarray], np.ndarray],
    span: float,
) -> None:
    for radiograph in radiographs.values():
        found = fitted(radiograph, wanted(config))
        assert steps(found, original(radiograph.pixels), span).max() < 1e-3


@pytest.mark.parametrize(
    ("config", "original", "span"),
    [("rad_dino", originals.rad_dino, 1 / 0.2583), ("medsiglip", originals.medsiglip, 2.0)],
)
def test_torchvision_differs_by_a_step_in_few_pixels(
    radiographs: dict[str, Radiograph],
    config: str,
    original: Callable[[np.ndarray, str], np.ndarray],
    span: float,
) -> None:
    """PyTorch's coefficients for 8-bit images have fewer bits than Pillow's."""
    for radiograph in radiographs.values():
        off = steps(
            fitted(radiograph, wanted(config)), original(radiograph.pixels, "torchvision"), span
        )
        assert off.max() < 1.001
        assert off.mean() < 0.02


@pytest.mark.parametrize(("engine", "interpolation"), [("skimage", "gaussian"), ("cv2", "area")])
def test_torchxrayvision_gets_the_same_floats_of_the_full_depth(
    radiographs: dict[str, Radiograph], engine: str, interpolation: str
) -> None:
    model_input = wanted("torchxrayvision_densenet121", 1, interpolation=interpolation)
    for name, radiograph in radiographs.items():
        if name == "small":  # enlarged: scikit-image mixes in what is outside
            continue
        expected = originals.xray_vision(radiograph.pixels, engine)
        assert steps(fitted(radiograph, model_input), expected, 2048.0).max() < 0.01


def test_without_8_bits_real_radiographs_differ_by_the_rounding_of_the_originals(
    radiographs: dict[str, Radiograph],
) -> None:
    """Originals that take floats agree, except where bicubic values go beyond the range."""
    for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm"):
        radiograph = radiographs[name]
        deep = fitted(radiograph, wanted("rad_dino", bits=None))
        of_8_bits = steps(deep, originals.rad_dino(radiograph.pixels), 1 / 0.2583)
        of_floats = steps(deep, originals.rad_dino(radiograph.pixels, "floats"), 1 / 0.2583)
        print(name, of_8_bits.max(), of_floats.max())
        assert 0.1 < of_8_bits.mean() < of_8_bits.max() < 1.2
        assert of_floats.mean() < 0.001
        assert of_floats.max() < 1
