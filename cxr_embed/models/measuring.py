"""Measures the embedding size of a model whose signature leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models import inputs
from cxr_embed.models.signature import not_a_vector
from cxr_embed.radiograph import Radiograph


def measured_embedding_size(
    fit: Callable[[Radiograph], Any], embed: Callable[[list[Any]], np.ndarray], output_name: str
) -> int:
    """Runs a model that is being loaded once, which also shows whether it can be run.

    Args:
        fit: the model's.
        embed: the model's.
        output_name: its output, for messages.

    Raises:
        UsageError: it cannot be run, or does not give one vector per image.
    """
    try:
        vectors = embed([fit(inputs.example_radiograph())])
    except Exception as error:
        raise UsageError(f"the model cannot be run: {one_line(error)}") from error
    if vectors.ndim != 2:
        raise UsageError(not_a_vector(output_name, f"of shape {list(vectors.shape)}"))
    return int(vectors.shape[1])
