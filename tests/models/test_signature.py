"""What is inferred from a signature, and what has to be said."""

from __future__ import annotations

import pytest

from cxr_embed.errors import UsageError
from cxr_embed.models.config import ModelConfig, StageConfig
from cxr_embed.models.fit import ModelInput
from cxr_embed.models.inputs import ImageInput
from cxr_embed.models.outputs import chain
from cxr_embed.models.resizing import Resizing
from cxr_embed.models.signature import (
    TensorSpec,
    Wiring,
    choose_signature,
    image_input,
    wire,
)
from cxr_embed.models.tf_example import ExampleInput
from cxr_embed.models.vectors import (
    embedding_size,
)

Specs = dict[str, TensorSpec]

IMAGE = {"image": TensorSpec("float32", (None, 475, 475, 3))}
VECTOR = {"embedding": TensorSpec("float32", (None, 4096))}
EXAMPLES = {"input_example": TensorSpec("string", (None,))}
OPEN = {"x": TensorSpec("float32", (None, None, None, 3))}
MAPS = {"feature_maps_0": TensorSpec("float32", (1, 8, 8, 1376))}


def infer(
    inputs: Specs, outputs: Specs, config: ModelConfig | None = None
) -> tuple[Wiring, ImageInput, int | None]:
    config = config or ModelConfig()
    wiring = wire(inputs, outputs, chain(config)[0])
    return wiring, image_input(wiring, config), embedding_size(wiring, config)


def test_an_image_signature_says_it_all() -> None:
    wiring, wanted, size = infer(IMAGE, VECTOR)
    assert wanted == ModelInput(475, 475, 3, "float32", 0.0, 1.0)
    assert (wiring.input_name, wiring.output_name) == ("image", "embedding")
    assert (wiring.batch, size) == (None, 4096)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_integer_inputs_and_one_channel_are_fine(dtype: str) -> None:
    wiring, wanted, _ = infer({"x": TensorSpec(dtype, (1, 64, 32, 1))}, VECTOR)
    assert wanted == ModelInput(64, 32, 1, dtype)
    assert wiring.batch == 1


def test_open_sizes_stay_open_unless_the_config_says_one() -> None:
    assert infer(OPEN, VECTOR)[1] == ModelInput(None, None, 3)
    assert infer(OPEN, VECTOR, ModelConfig(size=(100, 80)))[1] == ModelInput(100, 80, 3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_config_says_the_layout_where_the_shape_fits_both(layout: str) -> None:
    for shape in ((None, None, None, None), (1, 3, 3, 3), (None, 3, None, None)):
        found = infer({"x": TensorSpec("float32", shape)}, VECTOR, ModelConfig(layout=layout))[1]
        assert isinstance(found, ModelInput)
        assert found.layout == layout


def test_the_config_says_how_a_radiograph_gets_the_size() -> None:
    config = ModelConfig(
        mean=(0.5,), std=(1.0, 2.0, 3.0), bits=8, resize="shortest_edge", shortest_edge=512,
        crop="torchvision", interpolation="bicubic",
    )  # fmt: skip
    how = Resizing("shortest_edge", 512, "torchvision", "bicubic", 8)
    assert infer(IMAGE, VECTOR, config)[1] == ModelInput(
        475, 475, mean=(0.5,), std=(1.0, 2.0, 3.0), resizing=how
    )


def test_a_string_is_a_serialized_example() -> None:
    wiring, wanted, size = infer(EXAMPLES, VECTOR)
    assert wanted == ExampleInput(compression=0)
    assert (wiring.batch, size) == (None, 4096)
    assert infer({"e": TensorSpec("string", (1,))}, VECTOR)[0].batch == 1
    config = ModelConfig(size=(64, 32), bits=8)
    assert infer(EXAMPLES, VECTOR, config)[1] == ExampleInput(0, (64, 32), 8)


def test_a_batch_that_only_the_output_fixes_is_fixed() -> None:
    assert infer(EXAMPLES, MAPS, ModelConfig(pooling="mean"))[0].batch == 1


@pytest.mark.parametrize(("pooling", "size"), [("mean", 1376), ("flatten", 8 * 8 * 1376)])
def test_pooling_makes_a_vector_of_a_map(pooling: str, size: int) -> None:
    assert infer(EXAMPLES, MAPS, ModelConfig(pooling=pooling))[2] == size


def test_constants_fill_the_other_inputs() -> None:
    inputs = {**IMAGE, "ids": TensorSpec("int32", (1, 1, 128))}
    wiring = wire(inputs, VECTOR, StageConfig(constants=(("ids", 0.0),)))
    assert wiring.input_name == "image"
    assert wiring.constants == (("ids", inputs["ids"], 0.0),)
    for constant, complaint in (("idz", "no input 'idz'"), ("image", "needs a known shape")):
        with pytest.raises(UsageError, match=complaint):
            wire({**IMAGE, "image": TensorSpec("float32", None)}, VECTOR,
                 StageConfig(constants=((constant, 0.0),)))  # fmt: skip


def test_several_outputs_need_a_name_unless_one_is_the_embedding() -> None:
    outputs = {"logits": TensorSpec("float32", (None, 5)), **VECTOR}
    assert infer(IMAGE, outputs)[0].output_name == "embedding"
    del outputs["embedding"]
    outputs["pooled"] = TensorSpec("float32", (None, 1376))
    with pytest.raises(UsageError, match=r"logits float32\[\?, 5\], pooled float32\[\?, 1376\]"):
        infer(IMAGE, outputs)
    assert infer(IMAGE, outputs, ModelConfig(output_name="pooled"))[2] == 1376


@pytest.mark.parametrize(
    ("inputs", "outputs", "config", "complaint"),
    [
        ({"x": TensorSpec("int32", (None,))}, VECTOR, {}, "neither a batch of images"),
        ({"x": TensorSpec("string", ())}, VECTOR, {}, "neither a batch of images"),
        ({"x": TensorSpec("float32", (None, 8, 8, 4))}, VECTOR, {}, "neither a batch of images"),
        ({**IMAGE, "y": TensorSpec("int32", ())}, VECTOR, {}, "more than one input"),
        (IMAGE, {"f": TensorSpec("float32", (None, 8, 8, 1376))}, {}, "not one vector an image"),
        (EXAMPLES, MAPS, {}, "output.pooling"),
        (IMAGE, {"v": TensorSpec("float32", (1376,))}, {}, "not one vector an image"),
        (EXAMPLES, VECTOR, {"range": (0.0, 1.0)}, "input.range .* does not apply"),
        (EXAMPLES, VECTOR, {"mean": (0.5,)}, "input.mean .* does not apply"),
        (EXAMPLES, VECTOR, {"resize": "pad"}, "input.resize .* does not apply"),
        (IMAGE, VECTOR, {"preprocessing": "elixr_c", "range": (0.0, 1.0)}, "fixed range"),
        (IMAGE, VECTOR, {"preprocessing": "elixr_c", "interpolation": "area"}, "fixed range"),
        ({"x": TensorSpec("uint8", (1, 8, 8, 3))}, VECTOR, {"std": (2.0,)}, "it is for floats"),
        (IMAGE, VECTOR, {"layout": "NCHW"}, "which input.layout NCHW .* does not fit"),
        (EXAMPLES, VECTOR, {"layout": "NCHW"}, "input.layout .* does not apply"),
        (
            {"x": TensorSpec("float32", (1, 8, 8, 1))},
            VECTOR,
            {"mean": (1.0,) * 3},
            "input.mean .* has 3 numbers, but .* give one, or 1",
        ),
        (OPEN, VECTOR, {"resize": "pad"}, "input.resize .* does not apply: .* needs input.size"),
        (
            IMAGE,
            VECTOR,
            {"resize": "shortest_edge", "shortest_edge": 256},
            "256, less than the 475",
        ),
        ({"x": TensorSpec("uint8", (1, 8, 8, 3))}, VECTOR, {"preprocessing": "elixr_c"}, "float32"),
        (IMAGE, VECTOR, {"embedding_size": 1376}, "4096 floats, but .* is 1376"),
        (IMAGE, VECTOR, {"size": (512, 512)}, "but input.size in the model config"),
        (IMAGE, VECTOR, {"input_name": "img"}, "no input 'img'; it has image"),
        (IMAGE, VECTOR, {"output_name": "emb"}, "no output 'emb'; it has embedding"),
    ],
)
def test_what_does_not_fit_is_shown(
    inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec], config: dict, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        infer(inputs, outputs, ModelConfig(**config))


def test_the_signature_itself() -> None:
    assert choose_signature(["a", "serving_default"], None) == "serving_default"
    assert choose_signature(["only"], None) == "only"
    assert choose_signature(["a", "b"], "b") == "b"
    for keys, wanted in ((["a", "b"], None), ([], None), (["a"], "z")):
        with pytest.raises(UsageError):
            choose_signature(keys, wanted)
