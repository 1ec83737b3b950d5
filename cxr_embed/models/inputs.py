"""The input types of all models, and the conversion of a radiograph to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_embed.models.elixr_input import ElixrInput, fit_elixr
from cxr_embed.models.fit import ModelInput, fit_image
from cxr_embed.models.tf_example import ExampleInput, fit_example
from cxr_embed.radiograph import Radiograph

ImageInput = ModelInput | ExampleInput | ElixrInput


def fit(radiograph: Radiograph, wanted: ImageInput) -> Any:
    """Converts a radiograph to a model's input: an array, or a serialized example as bytes."""
    if isinstance(wanted, ExampleInput):
        return fit_example(radiograph, wanted)
    if isinstance(wanted, ElixrInput):
        return fit_elixr(radiograph, wanted)
    return fit_image(radiograph, wanted)


def stack(images: Sequence[Any]) -> np.ndarray:
    """Returns converted images as one batch; serialized examples as an object array."""
    if isinstance(images[0], bytes):
        batch = np.empty(len(images), object)  # NumPy's bytes dtype drops trailing zeros
        batch[:] = images
        return batch
    return np.stack(images)


def pad(values: np.ndarray, length: int) -> np.ndarray:
    """Returns a batch with its last image repeated until there are `length` images."""
    if len(values) >= length:
        return values
    return np.concatenate([values, np.repeat(values[-1:], length - len(values), axis=0)])


def describe(wanted: ImageInput) -> str:
    """Returns a description of an input for log messages."""
    if isinstance(wanted, ExampleInput):
        return "PNGs in serialized examples"
    if wanted.is_open:
        return "any size"
    return f"{wanted.height} x {wanted.width}"


def least_size(wanted: ImageInput) -> tuple[int, int] | None:
    """Returns the rows and columns that a radiograph needs, so that resizing only shrinks it.

    None if it is not resized here by averaging: an input of any size, one of whole PNGs, and
    ELIXR's, which picks single pixels.
    """
    if not isinstance(wanted, ModelInput) or wanted.height is None or wanted.width is None:
        return None
    edge = 0
    if wanted.resizing.mode == "shortest_edge":
        edge = wanted.resizing.shortest_edge or max(wanted.height, wanted.width)
    return max(wanted.height, edge), max(wanted.width, edge)


def example_radiograph() -> Radiograph:
    """Returns a grey ramp, to measure the embedding size of a model by calling it."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    return Radiograph(np.minimum.outer(ramp, ramp))
