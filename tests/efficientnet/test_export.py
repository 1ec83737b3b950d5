"""The exported SavedModel, as any other program would use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from cxr_embed import models
from cxr_embed.efficientnet import export
from cxr_embed.efficientnet.architecture import ARCHITECTURES, folded_parameter_count
from cxr_embed.efficientnet.export import export_model
from cxr_embed.errors import UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.models.fit import ModelInput
from cxr_embed.models.kinds import DESCRIPTION_FILE

B0 = ARCHITECTURES["efficientnet-b0"]
SIZE = 64
# Between batches of different size TensorFlow may add in another order.
TOLERANCE = 1e-5

small = {"architecture": "efficientnet-b0", "image_size": 32, "embedding_size": 16}


@pytest.fixture(scope="module")
def model(small_model: Path) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(small_model))


@pytest.fixture
def embed_images(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: model.signatures["serving_default"](image=images)["embedding"].numpy()


@pytest.fixture
def embed_pngs(model: Any) -> Callable[..., np.ndarray]:
    def embed(*pngs: bytes) -> np.ndarray:
        import tensorflow as tf

        examples = tf.constant([example_of(png) for png in pngs])
        return model.signatures["serialized_example"](input_example=examples)["embedding"].numpy()

    return embed


def example_of(png: bytes) -> bytes:
    import tensorflow as tf

    def feature(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {"image/encoded": feature(png), "image/format": feature(b"png")}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def png_of(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def radiographs(count: int, size: int = SIZE) -> np.ndarray:
    from cxr_embed.efficientnet.calibration import synthetic_radiographs

    return synthetic_radiographs(count, size, seed=42)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max())


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosines of all pairs."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_signatures_have_the_promised_names_shapes_and_dtypes(model: Any) -> None:
    import tensorflow as tf

    assert set(model.signatures) == {"serving_default", "serialized_example"}
    image = model.signatures["serving_default"]
    assert image.structured_input_signature == (
        (),
        {"image": tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="image")},
    )
    example = model.signatures["serialized_example"]
    assert example.structured_input_signature == (
        (),
        {"input_example": tf.TensorSpec([None], tf.string, name="input_example")},
    )
    for signature in (image, example):
        assert set(signature.structured_outputs) == {"embedding"}
        output = signature.structured_outputs["embedding"]
        assert (output.shape.as_list(), output.dtype) == ([None, 4096], tf.float32)


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_both_signatures_agree_on_an_image_of_the_models_size(
    embed_images: Any, embed_pngs: Any, dtype: Any, full: int
) -> None:
    pixels = np.round(radiographs(2)[..., 0] * full).astype(dtype)
    images = np.repeat((pixels.astype(np.float32) / np.float32(full))[..., None], 3, axis=-1)
    found = embed_pngs(*(png_of(each) for each in pixels))
    assert same(found, embed_images(images))


def test_examples_of_other_sizes_are_resized_with_antialiasing(
    embed_images: Any, embed_pngs: Any
) -> None:
    """A fine chequerboard is grey from afar; without antialiasing it would be black or white."""
    fine = (np.indices((8 * SIZE, 6 * SIZE)).sum(axis=0) % 2 * 255).astype(np.uint8)
    grey = np.full((1, SIZE, SIZE, 3), 0.5, np.float32)
    found, expected = embed_pngs(png_of(fine)), embed_images(grey)
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_one_batch_of_examples_may_mix_sizes_and_depths(embed_pngs: Any) -> None:
    first = png_of((radiographs(1, 100)[0, :, :80, 0] * 255).astype(np.uint8))
    second = png_of((radiographs(1, 40)[0, ..., 0] * 65535).astype(np.uint16))
    together = embed_pngs(first, second)
    assert same(together[0], embed_pngs(first)[0])
    assert same(together[1], embed_pngs(second)[0])


def test_an_image_has_one_vector_in_every_place_of_every_batch(embed_images: Any) -> None:
    images = radiographs(4)
    together, turned = embed_images(images), embed_images(images[::-1].copy())
    for place in range(4):
        alone = embed_images(images[place : place + 1])[0]
        assert same(together[place], alone)
        assert same(turned[3 - place], alone)


def test_different_radiographs_have_clearly_different_vectors(embed_images: Any) -> None:
    vectors = embed_images(radiographs(6))
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert cosines(vectors).max() < 0.9
    assert cosines(vectors - vectors.mean(axis=0)).max() < 0.6


def test_each_weight_is_stored_once(small_model: Path) -> None:
    stored = sum(path.stat().st_size for path in small_model.rglob("*") if path.is_file())
    numbers = folded_parameter_count(B0, 4096)
    # The graph takes half a megabyte whatever the weights.
    assert 4 * numbers <= stored <= 4 * numbers + 1_000_000


def test_the_description_says_what_the_model_is(small_model: Path) -> None:
    description = json.loads((small_model / DESCRIPTION_FILE).read_text("utf-8"))
    assert description["architecture"] == "efficientnet-b0"
    assert (description["image_size"], description["embedding_size"]) == (SIZE, 4096)
    assert (description["weights"], description["trained"], description["seed"]) == (
        "random",
        False,
        0,
    )
    assert "no clinical meaning" in description["note"]


def test_the_same_arguments_give_the_same_variables(small_model: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    report = export_model(again, architecture="efficientnet-b0", image_size=SIZE)
    for name in ("variables/variables.data-00000-of-00001", DESCRIPTION_FILE):
        assert (again / name).read_bytes() == (small_model / name).read_bytes()
    assert report.bytes_on_disk == sum(
        path.stat().st_size for path in again.rglob("*") if path.is_file()
    )
    assert (report.parameters, report.trained) == (folded_parameter_count(B0, 4096), False)


def test_without_projection_it_gives_the_pooled_features(tmp_path: Path) -> None:
    import tensorflow as tf

    report = export_model(tmp_path / "m", architecture="efficientnet-lite0", image_size=33,
                          embedding_size=0)  # fmt: skip
    assert report.embedding_size == 1280
    signature = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    features = signature(image=radiographs(2, 33))["embedding"].numpy()
    assert features.shape == (2, 1280)
    # Averages of relu6.
    assert 0 <= features.min() <= features.max() <= 6


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("half way")])
def test_an_interrupted_export_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stop(source: Any, image_size: int, folder: Path) -> None:
        (folder / "variables").mkdir()
        (folder / "variables" / "half").write_bytes(b"1234")
        raise error

    monkeypatch.setattr(export, "_save", stop)
    with pytest.raises(type(error)):
        export_model(tmp_path / "new" / "model", **small)
    assert files_in(tmp_path) == []


def test_an_existing_folder_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_read_weights", lambda *_: pytest.fail("it went to work"))
    (tmp_path / "model").mkdir()
    with pytest.raises(UsageError, match=r"exists: pass another folder, or --overwrite"):
        export_model(tmp_path / "model", **small)


def test_overwriting_replaces_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"old")
    (folder / "stale").write_bytes(b"old")
    export_model(folder, **small, overwrite=True)
    assert files_in(tmp_path) == ["model"]
    assert not (folder / "stale").exists()
    assert (folder / "saved_model.pb").stat().st_size > 1000


def test_overwriting_spares_what_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_bytes(b"years of work")
    with pytest.raises(UsageError, match="not a model"):
        export_model(tmp_path, **small, overwrite=True)
    assert files_in(tmp_path) == ["thesis.docx"]


def test_a_failed_overwrite_keeps_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"old")
    monkeypatch.setattr(export, "_read_weights", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_model(folder, **small, overwrite=True)
    assert files_in(tmp_path) == ["model"]
    assert (folder / "saved_model.pb").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet50"}, "resnet50 is not known: pass one of efficientnet-b0"),
        ({"image_size": 16}, "image_size 16 is out of range"),
        ({"image_size": -1}, "image_size -1 is out of range"),
        ({"embedding_size": -5}, "embedding_size -5 is out of range"),
        ({"format": "tflite"}, "format tflite is not known: pass one of saved_model, onnx"),
        ({"weights": "/nowhere/l2.safetensors"}, "/nowhere/l2.safetensors: no such file"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        export_model(tmp_path / "model", **{**small, **arguments})
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == []


def test_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="copy it to the bucket"):
        export_model("gs://bucket/model", **small)


def test_a_full_disk_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(UsageError, match=r"needs 0\.1 GB and the disk has 0\.0 GB left"):
        export_model(tmp_path / "model", **small)
    assert files_in(tmp_path) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        export_model(tmp_path / "file" / "model", **small)


class TestOnnx:
    @pytest.fixture(scope="class")
    def graph(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("onnx") / "b0"
        export_model(folder, architecture="efficientnet-b0", image_size=SIZE, format="onnx")
        return folder

    def test_it_gives_what_the_saved_model_gives(self, graph: Path, embed_images: Any) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(graph / "model.onnx")
        images = radiographs(3)
        (found,) = session.run(["embedding"], {"image": images})
        expected = embed_images(images)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()

    def test_odd_sizes_relu6_and_no_projection(self, tmp_path: Path) -> None:
        arguments = {"architecture": "efficientnet-lite0", "image_size": 75, "embedding_size": 0}
        vectors = []
        for format_ in export.FORMATS:
            export_model(tmp_path / format_, format=format_, **arguments)
            model = models.load(ModelSettings(str(tmp_path / format_)))
            vectors.append(model.embed(radiographs(1, 75)))
        assert vectors[0].shape == (1, 1280)
        assert np.abs(vectors[1] - vectors[0]).max() <= 1e-4 * np.abs(vectors[0]).max()

    def test_the_main_job_takes_its_folder(self, graph: Path) -> None:
        model = models.load(ModelSettings(str(graph)))
        assert (model.input, model.embedding_size) == (ModelInput(SIZE, SIZE), 4096)
        assert model.max_batch_size is None

    def test_the_graph_is_valid_and_says_what_it_is(self, graph: Path) -> None:
        import onnx

        onnx.checker.check_model(graph / "model.onnx", full_check=True)
        stored = onnx.load(graph / "model.onnx", load_external_data=False)
        properties = {each.key: each.value for each in stored.metadata_props}
        description = json.loads((graph / DESCRIPTION_FILE).read_text("utf-8"))
        assert json.loads(properties["cxr_embed"]) == description
        assert "no clinical meaning" in description["note"]

    def test_the_same_arguments_give_the_same_bytes(self, graph: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        export_model(again, architecture="efficientnet-b0", image_size=SIZE, format="onnx")
        assert files_in(again) == files_in(graph)
        for name in files_in(graph):
            assert (again / name).read_bytes() == (graph / name).read_bytes(), name

    def test_each_weight_is_stored_once(self, graph: Path) -> None:
        stored = sum(path.stat().st_size for path in graph.iterdir())
        numbers = 4 * folded_parameter_count(B0, 4096)
        # Each of the 180 weights begins at a page.
        assert numbers <= stored <= numbers + 1_000_000

    def test_the_output_is_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"b0\.onnx: pass a folder; it will hold model\.onnx"):
            export_model(tmp_path / "b0.onnx", **small, format="onnx")

    def test_without_the_extra_nothing_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(UsageError, match=r"pip install 'cxr-embed\[onnx\]'"):
            export_model(tmp_path / "model", **small, format="onnx")
        assert files_in(tmp_path) == []
