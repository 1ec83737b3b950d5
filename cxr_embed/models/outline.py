"""Reads a model's input and embedding size from its signature, without loading the model.

The launcher of a remote job uses it. It writes the embedding size before the first record, and
rejects a batch size that the model does not accept before any worker starts. Reading the signature
needs neither 2 GB of memory for the weights nor the GPU of `--device=gpu`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxr_embed import models
from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.config import ModelConfig, StageConfig
from cxr_embed.models.fit import ModelInput
from cxr_embed.models.inputs import ImageInput
from cxr_embed.models.signature import (
    TensorSpec,
    Wiring,
    choose_signature,
    embedding_size,
    image_input,
    wire,
)
from cxr_embed.models.tensorflow import runtime as tensorflow_runtime

# Internal operations that a SavedModel lists among its signatures.
_OPERATIONS = ("__saved_model_init_op", "__saved_model_train_op")


@dataclass(frozen=True)
class Outline:
    """The attributes of an `EmbeddingModel` that its signature determines."""

    input: ImageInput
    embedding_size: int
    device: str
    max_batch_size: int | None
    best_batch_size: int


def outline(settings: models.ModelSettings) -> Outline | models.EmbeddingModel:
    """Returns a model's input and output, from its signature alone if possible.

    If the signature leaves the embedding size open, or only a part of the graph is run, the model
    is loaded on the CPU. A hosted model is always called.

    Raises:
        UsageError: the model cannot be used with these settings.
    """
    if settings.endpoint is not None:
        return models.load(settings)
    models.check_is_there(settings)
    stages = list(zip(settings.folders, settings.config.chain, strict=True))
    if any(stage.feed or stage.pool for _, stage in stages):
        return models.load(replace(settings, device="cpu"))
    wirings = [_read_wiring(folder, stage) for folder, stage in stages]
    return _outline(wirings, settings.config, settings.device) or models.load(
        replace(settings, device="cpu")
    )


def _outline(wirings: list[Wiring], config: ModelConfig, device: str) -> Outline | None:
    first, last = wirings[0], wirings[-1]
    taken, size = image_input(first, config), embedding_size(last, config)
    if size is None:
        return None
    is_open = isinstance(taken, ModelInput) and taken.is_open
    most = 1 if is_open else first.batch
    best = models.batch_size_for(device)
    return Outline(taken, size, device, most, min(best, most or best))


def _read_wiring(folder: str, stage: StageConfig) -> Wiring:
    signatures = _read_signatures(folder)
    signature = signatures[choose_signature(list(signatures), stage.signature)]
    return wire(_specs(signature.inputs), _specs(signature.outputs), stage)


def _read_signatures(folder: str) -> dict[str, Any]:
    """Parses the graph's file without loading the variables."""
    tensorflow_runtime.import_tensorflow()
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    parsed = saved_model_pb2.SavedModel()
    binary, text = Path(folder, "saved_model.pb"), Path(folder, "saved_model.pbtxt")
    try:
        if binary.is_file():
            parsed.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse(text.read_text(), parsed)
        signatures = parsed.meta_graphs[0].signature_def
    except Exception as error:
        raise UsageError(f"--model_path {folder} cannot be read: {one_line(error)}") from error
    return {key: value for key, value in signatures.items() if key not in _OPERATIONS}


def _specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    tf = tensorflow_runtime.import_tensorflow()

    def spec(info: Any) -> TensorSpec:
        shape = info.tensor_shape
        sizes = tuple(None if axis.size < 0 else int(axis.size) for axis in shape.dim)
        return TensorSpec(tf.as_dtype(info.dtype).name, None if shape.unknown_rank else sizes)

    return {name: spec(info) for name, info in tensors.items()}
