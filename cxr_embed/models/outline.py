"""Reads a model's input and embedding size from its signature, without loading the model.

The launcher of a remote job uses it. It writes the embedding size before the first record, and
rejects a batch size that the model does not accept before any worker starts. Reading the signature
needs neither 2 GB of memory for the weights nor the GPU of `--device=gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cxr_embed import models
from cxr_embed.models import several
from cxr_embed.models.inputs import ImageInput
from cxr_embed.models.signature import Wiring, image_input, layout_of
from cxr_embed.models.vectors import embedding_size


@dataclass(frozen=True)
class Outline:
    """The attributes of an `EmbeddingModel` that its signature determines."""

    input: ImageInput
    embedding_size: int
    device: str
    max_batch_size: int | None
    best_batch_size: int
    outputs: dict[str, slice] = field(default_factory=dict)


def outline(settings: models.ModelSettings) -> Outline | models.EmbeddingModel:
    """Returns a model's input and output, from its signature alone if possible.

    If the signature leaves the embedding size open, or the kind of model does not show how it is
    called, the model is loaded on the CPU. A hosted model is always called.

    Raises:
        UsageError: the model cannot be used with these settings.
    """
    if settings.endpoint is not None:
        return models.load(settings)
    models.check_is_there(settings)
    wirings = models.kind_of(settings.engine).wirings(settings)
    found = None if wirings is None else _outline(wirings, settings)
    return found or models.load(replace(settings, device="cpu"))


def _outline(wirings: list[Wiring], settings: models.ModelSettings) -> Outline | None:
    config, device = settings.config, settings.device
    first, last = wirings[0], wirings[-1]
    layout = models.kind_of(settings.engine).default_layout
    taken = image_input(first, config, layout)
    outputs: dict[str, slice] = {}
    if config.outputs:
        outputs = several.known_slices(config, wirings, layout_of(taken)) or {}
        size = max((each.stop for each in outputs.values()), default=None)
    else:
        size = embedding_size(last, config, layout_of(taken))
    if size is None:
        return None
    most = 1 if taken.is_open else first.batch
    best = models.batch_size_for(device)
    return Outline(taken, size, device, most, min(best, most or best), outputs)
