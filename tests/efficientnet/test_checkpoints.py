"""Published weights: timm's files and TensorFlow's checkpoints, as their makers write them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cxr_embed.efficientnet.architecture import (
    ARCHITECTURES,
    EMBEDDING_KERNEL,
    IMAGENET,
    weight_layout,
)
from cxr_embed.efficientnet.checkpoint_names import (
    efficientnet_pytorch_names,
    tensorflow_names,
    timm_names,
)
from cxr_embed.efficientnet.checkpoints import read_weights
from cxr_embed.efficientnet.safetensors_file import write_safetensors as write_ours
from cxr_embed.errors import UsageError

B0 = ARCHITECTURES["efficientnet-b0"]
L2 = ARCHITECTURES["efficientnet-l2"]
LITE0 = ARCHITECTURES["efficientnet-lite0"]

SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint16": "BF16",
                      "uint8": "F8_E4M3"}  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)
    return {name: source.random(shape, np.float32) for name, shape in weight_layout(LITE0).items()}


def as_timm(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as PyTorch shapes them, with what timm saves besides."""
    names = timm_names(LITE0)
    tensors = {
        names[name]: (
            # (k, k, in, out) to (out, in, k, k); depthwise (k, k, c, 1) to (c, 1, k, k).
            np.moveaxis(array, (2, 3), (0, 1) if "/depthwise/" in name else (1, 0))
            if array.ndim == 4
            else array
        )
        for name, array in weights.items()
    }
    tensors["classifier.weight"] = np.zeros((1000, 1280), np.float32)
    tensors["classifier.bias"] = np.zeros(1000, np.float32)
    tensors["bn1.num_batches_tracked"] = np.array(7, np.int64)
    return tensors


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def write_tensorflow_checkpoint(prefix: Path, tensors: dict[str, np.ndarray]) -> None:
    import tensorflow as tf

    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def as_tensorflow(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A training checkpoint: averages are what counts, beside weights, slots, step and head."""
    tensors = {}
    for name, theirs in tensorflow_names(LITE0).items():
        variable = f"efficientnet-lite0/{theirs}"
        tensors[variable] = weights[name] + 1
        tensors[f"{variable}/RMSProp"] = weights[name] + 2
        tensors[f"{variable}/ExponentialMovingAverage"] = weights[name]
    tensors["efficientnet-lite0/head/dense/kernel"] = np.zeros((1280, 1000), np.float32)
    tensors["efficientnet-lite0/head/dense/bias"] = np.zeros(1000, np.float32)
    tensors["global_step"] = np.array(350, np.int64)
    return tensors


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return list(found) == list(expected) and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )


def test_names_are_those_of_timms_modules() -> None:
    names = timm_names(L2)
    assert set(names) == set(weight_layout(L2))
    assert names["stem/kernel"] == "conv_stem.weight"
    assert names["stem/norm/variance"] == "bn1.running_var"
    # The first stage has no expansion: timm's DepthwiseSeparableConv.
    assert names["blocks/05/depthwise/kernel"] == "blocks.0.5.conv_dw.weight"
    assert names["blocks/05/project/kernel"] == "blocks.0.5.conv_pw.weight"
    assert names["blocks/05/project/norm/beta"] == "blocks.0.5.bn2.bias"
    assert names["blocks/06/expand/kernel"] == "blocks.1.0.conv_pw.weight"
    assert names["blocks/06/depthwise/norm/gamma"] == "blocks.1.0.bn2.weight"
    assert names["blocks/06/squeeze/bias"] == "blocks.1.0.se.conv_reduce.bias"
    assert names["blocks/87/project/kernel"] == "blocks.6.5.conv_pwl.weight"
    assert names["head/norm/mean"] == "bn2.running_mean"


def test_names_are_those_of_the_tensorflow_checkpoints() -> None:
    names = tensorflow_names(L2)
    assert set(names) == set(weight_layout(L2))
    assert names["stem/norm/variance"] == "stem/tpu_batch_normalization/moving_variance"
    assert names["blocks/00/project/kernel"] == "blocks_0/conv2d/kernel"
    assert names["blocks/00/project/norm/gamma"] == "blocks_0/tpu_batch_normalization_1/gamma"
    assert names["blocks/87/expand/kernel"] == "blocks_87/conv2d/kernel"
    assert names["blocks/87/depthwise/kernel"] == "blocks_87/depthwise_conv2d/depthwise_kernel"
    assert names["blocks/87/project/kernel"] == "blocks_87/conv2d_1/kernel"
    assert names["blocks/87/project/norm/mean"] == "blocks_87/tpu_batch_normalization_2/moving_mean"
    assert names["blocks/87/excite/bias"] == "blocks_87/se/conv2d_1/bias"
    assert names["head/kernel"] == "head/conv2d/kernel"


def test_names_are_those_of_efficientnet_pytorch() -> None:
    names = efficientnet_pytorch_names(L2)
    assert set(names) == set(weight_layout(L2))
    assert names["stem/norm/gamma"] == "_bn0.weight"
    assert names["blocks/00/depthwise/norm/mean"] == "_blocks.0._bn1.running_mean"
    assert names["blocks/87/expand/kernel"] == "_blocks.87._expand_conv.weight"
    assert names["blocks/87/project/norm/beta"] == "_blocks.87._bn2.bias"
    assert names["blocks/87/excite/bias"] == "_blocks.87._se_expand.bias"
    assert names["head/norm/variance"] == "_bn1.running_var"


def test_our_own_file(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    write_ours(tmp_path / "own.safetensors", weights)
    assert same(read_weights(tmp_path / "own.safetensors", LITE0).arrays, weights)
    kernel = np.random.default_rng(1).random((1280, 12), np.float32)
    write_ours(tmp_path / "head.safetensors", {EMBEDDING_KERNEL: kernel, **weights})
    found = read_weights(tmp_path / "head.safetensors", LITE0)
    assert same(found.arrays, {**weights, EMBEDDING_KERNEL: kernel})
    write_ours(tmp_path / "odd.safetensors", {EMBEDDING_KERNEL: kernel[1:], **weights})
    with pytest.raises(UsageError, match=r"embedding/kernel \(1279, 12\) instead of \(1280, 12\)"):
        read_weights(tmp_path / "odd.safetensors", LITE0)


def test_arrays_that_are_not_contiguous_are_written_in_their_order(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_ours(tmp_path / "own.safetensors", {"a": array.transpose(2, 0, 1), "b": array[:, ::2]})
    found = load_file(tmp_path / "own.safetensors")
    np.testing.assert_array_equal(found["a"], array.transpose(2, 0, 1))
    np.testing.assert_array_equal(found["b"], array[:, ::2])


def test_a_projection_in_the_weights_is_exported(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    import tensorflow as tf

    from cxr_embed.efficientnet.export import export_model

    kernel = np.random.default_rng(1).normal(size=(1280, 12)).astype(np.float32)
    path = tmp_path / "own.safetensors"
    write_ours(path, {**weights, EMBEDDING_KERNEL: kernel})
    arguments = {"architecture": "efficientnet-lite0", "image_size": 32, "weights": path}
    with pytest.raises(UsageError, match=r"own.safetensors gives 12 floats: pass --embedding_size"):
        export_model(tmp_path / "wrong", embedding_size=4096, **arguments)
    image = np.random.default_rng(2).random((1, 32, 32, 3), np.float32)
    vectors = []
    for size in (0, 12):
        report = export_model(tmp_path / str(size), embedding_size=size, **arguments)
        signature = tf.saved_model.load(str(report.path)).signatures["serving_default"]
        vectors.append(signature(image=image)["embedding"].numpy())
    features, embedding = vectors
    np.testing.assert_allclose(embedding, features @ kernel, rtol=1e-4, atol=1e-3)


def test_timms_safetensors(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    path = write_safetensors(tmp_path / "lite0.safetensors", as_timm(weights))
    found = read_weights(path, LITE0)
    assert same(found.arrays, weights)
    assert (found.source, found.trained, found.architecture) == ("lite0.safetensors", True, LITE0)


def test_halved_precision_is_widened(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    tensors = as_timm(weights)
    coarse = {
        name: array.view(np.uint32) & np.uint32(0xFFFF0000) for name, array in weights.items()
    }
    bfloat16 = {
        name: (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
        if array.dtype == np.float32
        else array
        for name, array in tensors.items()
    }
    found = read_weights(write_safetensors(tmp_path / "m.safetensors", bfloat16), LITE0)
    assert same(found.arrays, {name: array.view(np.float32) for name, array in coarse.items()})


def test_timms_config_gives_the_normalisation_of_pixels(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", as_timm(weights))
    config = {
        "architecture": "tf_efficientnet_lite0",
        "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_weights(path, LITE0).architecture.normalisation == IMAGENET
    (tmp_path / "config.json").write_text("{}")
    assert read_weights(path, LITE0).architecture == LITE0


def test_timms_models_of_another_padding_are_refused(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", as_timm(weights))
    config = {
        "architecture": "efficientnet_lite0",
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="pads images differently"):
        read_weights(path, LITE0)


def test_a_truncated_file_is_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", as_timm(weights))
    content = path.read_bytes()
    for length in (0, 4, 100, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"no whole \.safetensors file") as caught:
            read_weights(path, LITE0)
        assert "\n" not in str(caught.value)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    tensors = {name: array.astype(np.uint8) for name, array in as_timm(weights).items()}
    path = write_safetensors(tmp_path / "m.safetensors", tensors)
    with pytest.raises(UsageError, match=r"m\.safetensors: tensor \S+ cannot be read"):
        read_weights(path, LITE0)


def test_weights_of_another_architecture_are_listed(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", as_timm(weights))
    with pytest.raises(UsageError, match=r"efficientnet-b0: tensors 64 missing \(blocks/00/squ"):
        read_weights(path, B0)


@pytest.mark.parametrize(
    "given", ["", "model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
)
def test_a_tensorflow_checkpoint_by_prefix_file_or_folder(
    tmp_path: Path, weights: dict[str, np.ndarray], given: str
) -> None:
    """The moving averages are taken, as its authors do for evaluation."""
    write_tensorflow_checkpoint(tmp_path / "ck" / "model.ckpt", as_tensorflow(weights))
    found = read_weights(tmp_path / "ck" / given, LITE0)
    assert same(found.arrays, weights)
    assert found.trained


def test_a_tensorflow_checkpoint_without_averages(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    names = tensorflow_names(LITE0)
    plain = {f"efficientnet-lite0/{names[name]}": array for name, array in weights.items()}
    write_tensorflow_checkpoint(tmp_path / "model.ckpt", plain)
    assert same(read_weights(tmp_path / "model.ckpt", LITE0).arrays, weights)


def test_a_missing_tensor_of_a_tensorflow_checkpoint_is_named(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    tensors = as_tensorflow(weights)
    tensors = {name: array for name, array in tensors.items() if "/head/conv2d/" not in name}
    write_tensorflow_checkpoint(tmp_path / "model.ckpt", tensors)
    with pytest.raises(UsageError, match=r"1 missing \(head/kernel\)"):
        read_weights(tmp_path / "model.ckpt", LITE0)


def test_a_folder_without_a_checkpoint_and_an_unknown_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder with 0 TensorFlow checkpoints"):
        read_weights(tmp_path, B0)
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match="unknown kind"):
        read_weights(tmp_path / "weights.h5", B0)
    with pytest.raises(UsageError, match="no such file"):
        read_weights(tmp_path / "absent.pth", B0)


def test_pth_without_pytorch_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "b0.pth").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"pip install 'cxr-embed\[convert\]'"):
        read_weights(tmp_path / "b0.pth", B0)


def test_timms_pth(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in as_timm(weights).items()}
    for number, state in enumerate((tensors, {"state_dict": tensors, "epoch": 3})):
        for zipped in (True, False):
            path = tmp_path / f"{number}{zipped}.pth"
            torch.save(state, path, _use_new_zipfile_serialization=zipped)
            assert same(read_weights(path, LITE0).arrays, weights)


def test_a_pth_that_would_run_code_does_not(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "harmed",)

    torch.save({"a": Harm()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="holds more than tensors"):
        read_weights(tmp_path / "evil.pth", B0)
    assert not (tmp_path / "harmed").exists()


def test_trained_weights_are_exported_with_a_projection(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    from cxr_embed.efficientnet.export import export_model
    from cxr_embed.models.kinds import DESCRIPTION_FILE

    path = write_safetensors(tmp_path / "lite0.safetensors", as_timm(weights))
    report = export_model(
        tmp_path / "model",
        architecture="efficientnet-lite0",
        image_size=32,
        embedding_size=8,
        weights=path,
    )
    assert report.trained
    description = json.loads((report.path / DESCRIPTION_FILE).read_text("utf-8"))
    assert (description["weights"], description["trained"]) == ("lite0.safetensors", True)
    assert description["note"] == ""
