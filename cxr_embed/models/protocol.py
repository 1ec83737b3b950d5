"""The interface of a loaded model, which every engine implements."""

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
        input: the model's input for one image: for arrays a `fit.ModelInput`.
        embedding_size: floats in one embedding; of several, all together.
        device: name of the device for messages, such as `cpu` or `gpu`.
        max_batch_size: maximum number of images per call; None is no limit.
        best_batch_size: default number of images per call.

    An engine that gives several embeddings in one pass has two more attributes:
    `takes_several_outputs = True` on the class, and `outputs`, which is empty unless the config has
    several outputs: where `embed`'s vectors hold each embedding, a slice by name. See `several`.
    """

    input: ImageInput
    embedding_size: int
    device: str
    max_batch_size: int | None
    best_batch_size: int

    def fit(self, radiograph: Radiograph) -> Any:
        """Converts a radiograph to this model's input: an array, or a serialized example.

        `inputs.fit(radiograph, self.input)` does it. An array has the shape (height, width,
        channels), or (channels, height, width) if the input's layout is `NCHW`.
        """
        ...

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        """Returns float32 of shape (n, embedding_size) for n results of `fit`.

        Raises:
            SomeFailed: some images failed, and the model knows which.
            Exception: the batch failed, and the model does not know which images caused it.
        """
        ...


class SomeFailed(Exception):
    """Some images of a batch failed.

    Attributes:
        results: the embedding or the exception of each image.
    """

    def __init__(self, results: list[np.ndarray | Exception]) -> None:
        self.results = results
        super().__init__("some images of a batch failed")
