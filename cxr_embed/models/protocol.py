"""What every model offers, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cxr_embed.models.inputs import ImageInput
from cxr_embed.radiograph import Radiograph


class EmbeddingModel(Protocol):
    """A loaded model. `fit` may be called by several threads, `embed` by one at a time.

    `sharing.SharedModel` is what calls it: it holds the one lock.

    Attributes:
        input: what one image has to look like.
        embedding_size: floats in one embedding.
        device: where it runs, for people: `cpu`, `gpu` ...
        max_batch_size: the most images one call may get, None where the model takes any number.
        best_batch_size: images per call where the user leaves the choice.
    """

    input: ImageInput
    embedding_size: int
    device: str
    max_batch_size: int | None
    best_batch_size: int

    def fit(self, radiograph: Radiograph) -> Any:
        """Returns a radiograph as this model takes it: an array, or a serialized example."""
        ...

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        """Returns float32 of shape (n, embedding_size) for what `fit` returned.

        Raises:
            SomeFailed: the model knows which images failed and which did not.
            Exception: anything may be wrong with any image.
        """
        ...


class SomeFailed(Exception):
    """A batch of which some images have an embedding.

    Attributes:
        results: for each image its embedding, or why it has none.
    """

    def __init__(self, results: list[np.ndarray | Exception]) -> None:
        self.results = results
        super().__init__("some images of a batch failed")
