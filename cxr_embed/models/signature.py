"""Infers a model's input and output from its signature, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.models.config import IMAGE_KEYS, ModelConfig, StageConfig
from cxr_embed.models.elixr_input import ElixrInput
from cxr_embed.models.fit import ModelInput, numpy_type
from cxr_embed.models.inputs import ImageInput
from cxr_embed.models.resizing import Resizing
from cxr_embed.models.tf_example import ExampleInput

_IMAGE_DTYPES = ("float32", "float16", "bfloat16", "uint8", "uint16")
_CHANNELS = (1, 3, None)
_PREFERRED_OUTPUT = "embedding"


class TensorSpec(NamedTuple):
    """A tensor in a signature: dtype name and shape; unknown sizes are None."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]"
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"


@dataclass(frozen=True)
class Wiring:
    """How to call one signature.

    Attributes:
        input_name: name of the input for the batch.
        input: dtype and shape of this input.
        output_name: name of the output to read.
        output: dtype and shape of this output.
        constants: the other inputs, each with the value that fills it.
        batch: images per call if the signature fixes it, else None.
        outputs: all outputs by name.
    """

    input_name: str
    input: TensorSpec
    output_name: str
    output: TensorSpec
    constants: tuple[tuple[str, TensorSpec, float], ...]
    batch: int | None
    outputs: Mapping[str, TensorSpec] = field(default_factory=dict)

    def spec_of(self, name: str) -> TensorSpec:
        """Returns an output's dtype and shape.

        Raises:
            UsageError: the model has no output of this name.
        """
        if name not in self.outputs:
            raise UsageError(f"the model has no output {name!r}; it has {_show(self.outputs)}")
        return self.outputs[name]

    def filled(self, count: int) -> dict[str, np.ndarray]:
        """Returns the constant inputs by name, for a batch of `count` images."""
        return {
            name: np.full(
                [count if size is None else size for size in spec.shape or ()],
                value,
                numpy_type(spec.dtype),
            )
            for name, spec, value in self.constants
        }


def choose_signature(keys: list[str], wanted: str | None) -> str:
    """Returns the signature to call.

    Raises:
        UsageError: the model has no signature, not the wanted one, or several without a default.
    """
    if wanted is not None:
        if wanted in keys:
            return wanted
        raise UsageError(f"the model has no signature {wanted!r}; it has {_names(keys)}")
    if "serving_default" in keys:
        return "serving_default"
    if len(keys) == 1:
        return keys[0]
    raise UsageError(
        f"the model has no serving_default among its signatures ({_names(keys)}): "
        "name one in a --model_config"
    )


def wire(
    inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], stage: StageConfig
) -> Wiring:
    """Infers how to call a signature.

    Args:
        inputs: the signature's inputs by name.
        outputs: its outputs by name.
        stage: sets the values that the signature leaves open.

    Raises:
        UsageError: the signature is ambiguous, or lacks a name in `stage`. The message contains the
            signature.
    """
    constants = _constants(inputs, stage)
    filled = {name for name, _, _ in constants}
    input_name = _choose_input({k: v for k, v in inputs.items() if k not in filled}, stage)
    output_name = _choose_output(outputs, stage)
    taken, given = inputs[input_name], outputs[output_name]
    batch = taken.shape[0] if taken.shape else None
    if batch is None and given.shape is not None and len(given.shape) > 1:
        # Some graphs declare any batch size for the input but have a fixed one in the output.
        batch = given.shape[0]
    batch = stage.batch or batch
    return Wiring(input_name, taken, output_name, given, constants, batch, dict(outputs))


def image_input(wiring: Wiring, config: ModelConfig, default_layout: str = "NHWC") -> ImageInput:
    """Infers the model's input for one image.

    Args:
        wiring: how the model is called.
        config: sets the values that the signature leaves open.
        default_layout: `NHWC` or `NCHW`, for a shape that can be both.

    Raises:
        UsageError: the input does not accept images. The message contains its dtype and shape.
    """
    name, spec = wiring.input_name, wiring.input
    if spec.dtype == "string" and (spec.shape is None or len(spec.shape) == 1):
        _refuse(config, IMAGE_KEYS, f"the model's input {name} takes PNGs")
        return ExampleInput(size=config.size, bits=config.bits)
    shape = spec.shape if spec.shape is not None else (None, None, None, None)
    layout = _layout(shape, default_layout, config.layout)
    if spec.dtype not in _IMAGE_DTYPES or layout is None:
        raise UsageError(
            f"the model's input {name} is {spec}, neither a batch of images "
            f"[N, H, W, 1 or 3] or [N, 1 or 3, H, W] of {', '.join(_IMAGE_DTYPES)}, nor one of "
            "serialized examples [N]"
        )
    if config.layout not in (None, layout):
        raise UsageError(
            f"the model's input {name} is {spec}, which input.layout {config.layout} in the model "
            "config does not fit"
        )
    _, height, width, channels = shape if layout == "NHWC" else (*shape[:1], *shape[2:], shape[1])
    if config.size is not None:
        if (height or config.size[0], width or config.size[1]) != config.size:
            rows, columns = config.size
            raise UsageError(
                f"the model's input {name} is {spec}, but input.size in the model config is "
                f"[{rows}, {columns}]"
            )
        height, width = config.size
    if config.preprocessing:
        fixed = tuple(key for key in IMAGE_KEYS if key != "preprocessing")
        _refuse(config, fixed, f"preprocessing {config.preprocessing} has a fixed range and size")
        if height is None or width is None or spec.dtype != "float32" or layout != "NHWC":
            raise UsageError(
                f"the model's input {name} is {spec}: preprocessing {config.preprocessing} needs "
                "float32, a size and channels last"
            )
        return ElixrInput(height, width, channels or 3, config.bits)
    low, high = config.range or (0.0, 1.0)
    wanted = ModelInput(
        height,
        width,
        channels or 3,
        spec.dtype,
        low,
        high,
        mean=config.mean or (0.0,),
        std=config.std or (1.0,),
        resizing=_resizing(config),
        layout=layout,
    )
    _check_fits(wanted, config, f"the model's input {name} is {spec}")
    return wanted


def _resizing(config: ModelConfig) -> Resizing:
    return Resizing(
        config.resize or "stretch",
        config.shortest_edge,
        config.crop or "transformers",
        config.interpolation or "area",
        config.bits,
    )


def _check_fits(wanted: ModelInput, config: ModelConfig, what: str) -> None:
    if not wanted.is_float:
        _refuse(config, ("mean", "std"), f"{what}, and it is for floats")
    for key, values in (("mean", wanted.mean), ("std", wanted.std)):
        if len(values) not in (1, wanted.channels):
            raise UsageError(
                f"input.{key} in the model config has {len(values)} numbers, but {what}: give one, "
                f"or {wanted.channels}"
            )
    if wanted.is_open:
        keys = ("resize", "shortest_edge", "crop", "interpolation")
        _refuse(config, keys, f"{what}: it needs input.size")
    elif config.shortest_edge is not None:
        longer = max(wanted.height or 0, wanted.width or 0)
        if config.shortest_edge < longer:
            raise UsageError(
                f"input.shortest_edge in the model config is {config.shortest_edge}, less than the "
                f"{longer} that are cut out: {what}"
            )


def _layout(shape: tuple[int | None, ...], default: str, chosen: str | None = None) -> str | None:
    """Returns the layout of a batch of images, or None if a shape is not one."""
    if len(shape) != 4:
        return None
    fits = {"NHWC": shape[3] in _CHANNELS, "NCHW": shape[1] in _CHANNELS}
    # A size of 1 or 3 shows the channels' axis where the other axis is open.
    known = {"NHWC": fits["NHWC"] and shape[3], "NCHW": fits["NCHW"] and shape[1]}
    if chosen is not None and fits[chosen]:
        return chosen
    for options in (known, fits):
        found = [layout for layout, is_one in options.items() if is_one]
        if found:
            return default if default in found else found[0]
    return None


def layout_of(wanted: ImageInput) -> str:
    """Returns the axis order of a model's images, in which its feature maps are, too."""
    return wanted.layout if isinstance(wanted, ModelInput) else "NHWC"


def _constants(
    inputs: Mapping[str, TensorSpec], stage: StageConfig
) -> tuple[tuple[str, TensorSpec, float], ...]:
    for name, _ in stage.constants:
        if name not in inputs:
            raise UsageError(f"the model has no input {name!r}; it has {_show(inputs)}")
        shape = inputs[name].shape
        if shape is None or None in shape[1:]:
            raise UsageError(
                f"the model's input {name} is {inputs[name]}: a constant needs a known shape"
            )
    return tuple((name, inputs[name], value) for name, value in stage.constants)


def _choose_input(inputs: Mapping[str, TensorSpec], stage: StageConfig) -> str:
    if stage.input is not None and stage.input not in inputs:
        raise UsageError(f"the model has no input {stage.input!r}; it has {_show(inputs)}")
    if len(inputs) == 1:
        return next(iter(inputs))
    raise UsageError(
        f"the model takes more than one input: {_show(inputs)}; set constant values for all but "
        "one of them in a --model_config"
    )


def _choose_output(outputs: Mapping[str, TensorSpec], stage: StageConfig) -> str:
    if stage.output is not None:
        if stage.output in outputs:
            return stage.output
        raise UsageError(f"the model has no output {stage.output!r}; it has {_show(outputs)}")
    if len(outputs) == 1:
        return next(iter(outputs))
    if _PREFERRED_OUTPUT in outputs:
        return _PREFERRED_OUTPUT
    raise UsageError(
        f"the model has several outputs ({_show(outputs)}): name one in a --model_config"
    )


def _refuse(config: ModelConfig, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(config, name) is not None:
            raise UsageError(f"input.{name} in the model config does not apply: {why}")


def _show(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())


def _names(keys: list[str]) -> str:
    return ", ".join(sorted(keys)) or "none"
