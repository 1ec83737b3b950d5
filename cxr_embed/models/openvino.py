"""The same SavedModel, run by OpenVINO on the CPU (extra `openvino`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models import inputs, outputs
from cxr_embed.models.signature import TensorSpec, image_input, wire
from cxr_embed.models.tensorflow.kind import SAVED_MODEL
from cxr_embed.models.tf_example import ExampleInput
from cxr_embed.models.vectors import (
    check_embedding_size,
    embedding_size,
    measured_embedding_size,
)
from cxr_embed.radiograph import Radiograph

if TYPE_CHECKING:
    from cxr_embed.models import ModelSettings


class OpenVinoModel:
    """A SavedModel of the kind `image`, compiled by OpenVINO; see `EmbeddingModel`.

    `embed` may be called by one thread at a time, as `SharedModel` does.

    Args:
        settings: what to load; the device must be `auto` or `cpu`.

    Raises:
        UsageError: OpenVINO is not installed or cannot read the model.
    """

    kind = SAVED_MODEL
    device = "cpu"
    best_batch_size = 1

    def __init__(self, settings: ModelSettings) -> None:
        if settings.device not in ("auto", "cpu"):
            raise UsageError(
                f"--engine=openvino runs on the CPU only, not --device={settings.device}"
            )
        config = settings.config
        if config.signature not in (None, "serving_default") or config.stages or config.pooling:
            raise UsageError(
                "--engine=openvino reads one model's serving_default only; use --engine=tensorflow"
            )
        try:
            import openvino
        except ImportError as error:
            raise UsageError(
                "--engine=openvino needs the optional extra: pip install 'cxr-embed[openvino]'"
            ) from error
        try:
            model = openvino.Core().read_model(settings.local_path)
            wiring = wire(_specs(model.inputs), _specs(model.outputs), outputs.chain(config)[0])
            self.input = _require_images(image_input(wiring, config))
            size = embedding_size(wiring, config)
            # OpenVINO picks bfloat16 by itself where the processor has it: set what was asked for.
            hint = "bf16" if settings.precision == "bfloat16" else "f32"
            self._compiled = openvino.compile_model(
                model, "CPU", {"INFERENCE_PRECISION_HINT": hint}
            )
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"OpenVINO cannot read --model_path {settings.path}: {one_line(error)}"
            ) from error
        self._output = self._compiled.output(wiring.output_name)
        self.max_batch_size = 1 if self.input.is_open else wiring.batch
        self.embedding_size = size or measured_embedding_size(
            self.fit, self.embed, wiring.output_name
        )
        check_embedding_size(self.embedding_size, config)

    def fit(self, radiograph: Radiograph) -> Any:
        """Returns a radiograph as `embed` wants it."""
        return inputs.fit(radiograph, self.input)

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        """Returns float32 of shape (n, embedding_size) for fitted radiographs."""
        return np.array(self._compiled(inputs.stack(images))[self._output], np.float32)


def _require_images(wanted: inputs.ImageInput) -> inputs.ImageInput:
    if isinstance(wanted, ExampleInput):
        raise UsageError(
            "--engine=openvino cannot read the PNGs that this model takes; use --engine=tensorflow"
        )
    return wanted


def _specs(ports: list[Any]) -> dict[str, TensorSpec]:
    specs = {}
    for port in ports:
        shape = port.get_partial_shape()
        sizes = (
            None
            if shape.rank.is_dynamic
            else tuple(None if size.is_dynamic else size.get_length() for size in shape)
        )
        dtype = {"f32": "float32", "u8": "uint8", "u16": "uint16"}.get(
            port.get_element_type().get_type_name(), port.get_element_type().get_type_name()
        )
        # OpenVINO keeps TensorFlow's tensor names beside the signature's; the latter has no colon.
        names = sorted(name for name in port.get_names() if ":" not in name)
        specs[names[0] if names else port.get_any_name()] = TensorSpec(dtype, sizes)
    return specs
