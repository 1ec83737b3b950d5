"""ONNX graphs as other tools export them, run by the real ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphs
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import SIZE, expected, save, save_graph, weights

from cxr_embed import models
from cxr_embed.errors import MachineFault, UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.models.config import ModelConfig, StageConfig
from cxr_embed.models.fit import ModelInput, numpy_type
from cxr_embed.models.inputs import example_radiograph
from cxr_embed.models.outline import Outline, outline
from cxr_embed.models.sharing import SharedModel

TYPES = {
    "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8,
    "bfloat16": TensorProto.BFLOAT16, "uint16": TensorProto.UINT16,
}  # fmt: skip


def load(path: Path, **settings: Any) -> models.EmbeddingModel:
    return models.load(ModelSettings(str(path), **settings))


def images(count: int, shape: tuple[int, ...] = (3, 16, 16)) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), np.float32)


def near(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-5) -> bool:
    return bool(np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max())


class TestWhatTheGraphSays:
    @pytest.mark.parametrize(
        ("shape", "dtype", "layout", "wanted"),
        [
            (("b", 3, 16, 16), "float32", "NCHW", (16, 16, 3)),
            (("b", 16, 12, 3), "float32", "NHWC", (16, 12, 3)),
            (("b", 1, 16, 16), "float32", "NCHW", (16, 16, 1)),
            ((None, 3, None, None), "float32", "NCHW", (None, None, 3)),
            (("b", None, None, 3), "float32", "NHWC", (None, None, 3)),
            ((None,) * 4, "float32", "NCHW", (None, None, 3)),
            ((1, 3, 16, 16), "uint8", "NCHW", (16, 16, 3)),
            (("b", 3, 16, 16), "uint16", "NCHW", (16, 16, 3)),
            (("b", 3, 16, 16), "float16", "NCHW", (16, 16, 3)),
            (("b", 3, 16, 16), "bfloat16", "NCHW", (16, 16, 3)),
        ],
    )  # fmt: skip
    def test_layout_size_channels_and_type_are_read_from_it(
        self, tmp_path: Path, shape: Any, dtype: str, layout: str, wanted: tuple[Any, ...]
    ) -> None:
        path = save_graph(tmp_path / "m.onnx", shape, TYPES[dtype], layout=layout)
        model = load(path)
        assert model.input == ModelInput(*wanted, dtype, layout=layout)
        fitted = model.fit(example_radiograph())
        assert fitted.dtype.name == dtype
        first = fitted if layout == "NCHW" else np.moveaxis(fitted, -1, 0)
        (found,) = model.embed([fitted])
        assert found.dtype == np.float32
        given = weights(channels=len(first))
        assert near(found, expected(np.asarray(first, np.float32)[np.newaxis], given)[0])
        told = outline(ModelSettings(str(path), device="cpu"))
        assert isinstance(told, Outline)
        for name in ("input", "embedding_size", "max_batch_size", "best_batch_size"):
            assert getattr(told, name) == getattr(model, name), name

    def test_a_graph_in_half_precision_is_run_as_it_is(self, tmp_path: Path) -> None:
        half = TensorProto.FLOAT16
        path = save_graph(tmp_path / "m.onnx", dtype=half, compute=half)
        batch = images(2).astype(np.float16)
        found = load(path).embed(batch)
        assert found.dtype == np.float32
        assert near(found, expected(batch, weights()), 5e-3)
        assert models.precision_of(ModelSettings(str(path))) == "float16"

    def test_a_graph_in_bfloat16_may_be_asked_for(self, tmp_path: Path) -> None:
        """ONNX Runtime has few operators of this type on a CPU."""
        half = TensorProto.BFLOAT16
        matrix = weights()["matrix"][:3]
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["image"], ["single"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["single"], ["mean"], axes=[2, 3], keepdims=0),
                helper.make_node("Cast", ["matrix"], ["weights"], to=TensorProto.FLOAT),
                helper.make_node("MatMul", ["mean", "weights"], ["product"]),
                helper.make_node("Cast", ["product"], ["embedding"], to=half),
            ],
            "half",
            [helper.make_tensor_value_info("image", half, ["b", 3, 8, 8])],
            [helper.make_tensor_value_info("embedding", half, ["b", SIZE])],
            [numpy_helper.from_array(matrix.astype(numpy_type("bfloat16")), "matrix")],
        )
        path = save(tmp_path / "m.onnx", graph)
        model = load(path, precision="bfloat16")
        batch = np.stack([model.fit(example_radiograph())] * 2)
        found = model.embed(batch)
        assert found.dtype == np.float32
        assert near(found, batch.astype(np.float32).mean((2, 3)) @ matrix, 2e-2)

    def test_another_precision_than_the_graphs_is_an_error(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx")
        with pytest.raises(UsageError, match="computes in float32: export it in bfloat16"):
            load(path, precision="bfloat16")

    def test_a_fixed_batch_is_filled_up(self, tmp_path: Path) -> None:
        model = load(save_graph(tmp_path / "m.onnx", (4, 3, 16, 16), output=(4, SIZE)))
        assert (model.max_batch_size, model.best_batch_size) == (4, 1)
        assert near(model.embed(images(3)), expected(images(3), weights()))
        assert load(tmp_path / "m.onnx", batch_size=4).best_batch_size == 4

    def test_an_open_size_takes_one_radiograph_at_a_time(self, tmp_path: Path) -> None:
        model = load(save_graph(tmp_path / "m.onnx", ("b", 3, "h", "w")))
        assert model.max_batch_size == 1
        for shape in ((3, 20, 31), (3, 64, 16)):
            assert near(model.embed(images(1, shape)), expected(images(1, shape), weights()))
        sized = load(tmp_path / "m.onnx", config=ModelConfig(size=(20, 24)))
        assert sized.input == ModelInput(20, 24, layout="NCHW")
        assert sized.max_batch_size is None

    @pytest.mark.parametrize("output", [None, ("b", "n")])
    def test_an_embedding_size_that_is_open_is_measured(self, tmp_path: Path, output: Any) -> None:
        path = save_graph(tmp_path / "m.onnx", output=output)
        assert load(path).embedding_size == SIZE
        assert outline(ModelSettings(str(path), device="cpu")).embedding_size == SIZE
        with pytest.raises(UsageError, match=r"5 floats, but .* is 6"):
            load(path, config=ModelConfig(embedding_size=6))

    def test_another_size_than_it_declares_is_an_error(self, tmp_path: Path) -> None:
        """ONNX Runtime accepts such a graph."""
        path = save_graph(tmp_path / "m.onnx", output=("b", SIZE + 2))
        with pytest.raises(UsageError, match="declares embeddings of 7 floats and gives 5"):
            load(path)

    def test_with_an_open_size_each_vector_is_checked(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", ("b", 3, None, None), output=("b", SIZE + 2))
        (result,) = SharedModel(ModelSettings(str(path))).embed_each(list(images(1)))
        assert result.detail == "ValueError: the model gave [5] floats, not 7"


class TestOutputs:
    MAPS = ("b", 8, 7, 7)

    def test_one_of_several_has_to_be_named(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", extra_outputs={"features": ("b", 8)})
        rename(path, "embedding", "logits")
        listed = r"several outputs \(logits float32\[\?, 5\], features float32\[\?, 8\]\)"
        with pytest.raises(UsageError, match=listed):
            load(path)
        assert load(path, config=ModelConfig(output_name="features")).embedding_size == 8
        with pytest.raises(UsageError, match="no output 'pooled'; it has logits"):
            load(path, config=ModelConfig(output_name="pooled"))

    def test_feature_maps_are_averaged_over_rows_and_columns(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", extra_outputs={"maps": self.MAPS})
        with pytest.raises(UsageError, match=r"maps is .*, not one vector an image"):
            load(path, config=ModelConfig(output_name="maps"))
        mean = load(path, config=ModelConfig(output_name="maps", pooling="mean"))
        assert mean.embedding_size == 8
        assert near(mean.embed(images(2)) @ weights()["matrix"], expected(images(2), weights()))
        flat = load(path, config=ModelConfig(output_name="maps", pooling="flatten"))
        assert flat.embed(images(2)).shape == (2, flat.embedding_size) == (2, 8 * 7 * 7)


def rename(path: Path, old: str, new: str) -> None:
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for value in model.graph.output:
        value.name = new if value.name == old else value.name
    onnx.save(model, path)


class TestInputs:
    TEXT = {"ids": (TensorProto.INT64, ("b", 7))}  # noqa: RUF012

    def test_a_model_of_images_and_text_is_refused_by_the_names_of_its_inputs(
        self, tmp_path: Path
    ) -> None:
        path = save_graph(tmp_path / "m.onnx", extra_inputs=self.TEXT)
        with pytest.raises(UsageError, match=r"image float32\[.*\], ids int64\[\?, 7\]; set const"):
            load(path)

    def test_a_config_may_set_the_other_inputs(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", extra_inputs=self.TEXT)
        stage = StageConfig(input="image", constants=(("ids", 2),))
        found = load(path, config=ModelConfig(stages=(stage,))).embed(images(2))
        assert near(found, expected(images(2), weights()) + 2)

    def test_inputs_with_defaults_need_no_value(self, tmp_path: Path) -> None:
        import onnx

        path = save_graph(tmp_path / "m.onnx", extra_inputs={"shift": (TensorProto.FLOAT, (1,))})
        model = onnx.load(path)
        model.graph.initializer.append(numpy_helper.from_array(np.float32([3]), "shift"))
        onnx.save(model, path)
        for config in (ModelConfig(), ModelConfig(input_name="image")):
            assert near(
                load(path, config=config).embed(images(1)), expected(images(1), weights()) + 3
            )

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [(("b", 5, 16, 16), TensorProto.FLOAT), (("b", 3, 16, 16), TensorProto.INT32)],
    )
    def test_what_is_no_image_is_named(self, tmp_path: Path, shape: Any, dtype: int) -> None:
        path = save_graph(tmp_path / "m.onnx", shape, dtype)
        with pytest.raises(UsageError, match=r"input image is \w+\[.*, neither a batch of images"):
            load(path)

    def test_strings_are_no_images(self, tmp_path: Path) -> None:
        graph = helper.make_graph(
            [helper.make_node("StringNormalizer", ["text"], ["embedding"])],
            "text",
            [helper.make_tensor_value_info("text", TensorProto.STRING, ["n"])],
            [helper.make_tensor_value_info("embedding", TensorProto.STRING, ["n"])],
        )
        with pytest.raises(UsageError, match="input text is string"):
            load(save(tmp_path / "m.onnx", graph))

    @pytest.mark.parametrize(
        ("config", "complaint"),
        [
            (ModelConfig(signature="serving_default"), "sets signature"),
            (ModelConfig(stages=(StageConfig(), StageConfig())), "is one graph"),
            (ModelConfig(stages=(StageConfig(feed="a:0", fetch="b:0"),)), "is one graph"),
            (ModelConfig(preprocessing="elixr_c"), "channels last"),
        ],
    )
    def test_settings_of_other_kinds_do_not_apply(
        self, tmp_path: Path, config: ModelConfig, complaint: str
    ) -> None:
        with pytest.raises(UsageError, match=complaint):
            load(save_graph(tmp_path / "m.onnx"), config=config)


class TestFiles:
    def test_a_folder_may_hold_the_only_graph(self, tmp_path: Path) -> None:
        save_graph(tmp_path / "one/m.onnx", data_file="m.onnx_data")
        model = load(tmp_path / "one")
        assert near(model.embed(images(2)), expected(images(2), weights()))
        save_graph(tmp_path / "one/n.onnx")
        with pytest.raises(UsageError, match=r"several \.onnx files \(m.onnx, n.onnx\): pass one"):
            load(tmp_path / "one")
        (tmp_path / "none").mkdir()
        with pytest.raises(UsageError, match=r"holds no \.onnx file"):
            load(tmp_path / "none", engine="onnxruntime")

    def test_links_into_a_hubs_cache_are_followed(self, tmp_path: Path) -> None:
        save_graph(tmp_path / "a/model.onnx", data_file="model.onnx_data")
        (tmp_path / "blobs").mkdir()
        for name in ("model.onnx", "model.onnx_data"):
            (tmp_path / "a" / name).rename(tmp_path / "blobs" / name[::-1])
            (tmp_path / "a" / name).symlink_to(f"../blobs/{name[::-1]}")
        assert load(tmp_path / "a").embedding_size == SIZE

    def test_the_hash_is_of_the_graph_and_of_all_its_data_files(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", data_file="m.data")

        def identity() -> str:
            return models.content_id(ModelSettings(str(tmp_path)))

        before = identity()
        (tmp_path / "README").write_text("notes")
        path.rename(tmp_path / "other.onnx")
        assert identity() == before
        data = bytearray((tmp_path / "m.data").read_bytes())
        data[-1] ^= 1
        (tmp_path / "m.data").write_bytes(data)
        changed = identity()
        assert changed != before
        save_graph(tmp_path / "other.onnx", ("b", 3, 8, 8), data_file="m.data")
        assert identity() not in (before, changed)

    def test_a_data_file_that_is_missing_or_cut_short_is_named(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", data_file="m.data")
        data = (tmp_path / "m.data").read_bytes()
        (tmp_path / "m.data").write_bytes(data[:-4])
        with pytest.raises(UsageError, match=r"m\.data has \d+ bytes and the graph needs"):
            load(path)
        (tmp_path / "m.data").unlink()
        with pytest.raises(UsageError, match=r"needs its data file m\.data, which is missing"):
            load(path)

    def test_data_outside_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        import onnx

        path = save_graph(tmp_path / "m.onnx", data_file="m.data")
        model = onnx.load(path, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = "../../etc/passwd"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(UsageError, match="which is not below its folder"):
            load(path)

    @pytest.mark.parametrize("length", [0, 40, -10])
    def test_a_damaged_file_is_one_line(self, tmp_path: Path, length: int) -> None:
        path = save_graph(tmp_path / "m.onnx")
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(
            UsageError, match=r"m\.onnx is damaged or is not an ONNX graph"
        ) as caught:
            load(path)
        assert "\n" not in str(caught.value)

    def test_what_the_runtime_does_not_know_is_one_line(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx", opset=99)
        with pytest.raises(UsageError, match=r"cannot load --model_path .*m\.onnx: ONNX Runtime"):
            load(path)

    def test_without_the_extra_it_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save_graph(tmp_path / "m.onnx")
        for package in ("onnxruntime", "onnx"):
            monkeypatch.setitem(sys.modules, package, None)
            with pytest.raises(UsageError, match=r"pip install 'cxr-embed\[onnx\]'"):
                load(path)


class TestEngines:
    def test_the_kind_of_file_implies_the_engine(self, tmp_path: Path, tiny_model: Path) -> None:
        path = save_graph(tmp_path / "m/m.onnx")
        assert ModelSettings(str(path)).engine == "onnxruntime"
        assert ModelSettings(str(path.parent)).engine == "onnxruntime"
        assert ModelSettings(str(tiny_model)).engine == "tensorflow"

    @pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
    def test_no_other_engine_runs_it(self, tmp_path: Path, engine: str) -> None:
        path = save_graph(tmp_path / "m/m.onnx")
        for each in (path, path.parent):
            with pytest.raises(UsageError, match=r"an ONNX graph.*pass --engine=onnxruntime$"):
                load(each, engine=engine)

    def test_it_runs_no_saved_model(self, tiny_model: Path) -> None:
        with pytest.raises(
            UsageError, match=r"SavedModel.*--engine=tensorflow or --engine=openvino"
        ):
            load(tiny_model, engine="onnxruntime")

    def test_a_device_that_is_absent_is_an_error(self, tmp_path: Path) -> None:
        path = save_graph(tmp_path / "m.onnx")
        with pytest.raises(UsageError, match=r"--device=gpu: .*onnxruntime-gpu"):
            load(path, device="gpu")
        with pytest.raises(UsageError, match="--device=tpu"):
            load(path, device="tpu")
        assert load(path, device="auto").device == "cpu"


class TestImages:
    def test_an_image_has_the_same_bytes_whatever_its_neighbours(self, tmp_path: Path) -> None:
        """On a CPU each call has one image, as with the other engines."""
        path = save_graph(
            tmp_path / "m.onnx", ("b", 3, 64, 64), output=("b", 500), given=weights(size=500)
        )
        model = SharedModel(ModelSettings(str(path)))
        batch = list(images(5, (3, 64, 64)))
        alone = [model.embed_each([image])[0] for image in batch]
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [3, 3, 3]):
            found = model.embed_each([batch[n] for n in order])
            for place, n in enumerate(order):
                np.testing.assert_array_equal(found[place], alone[n])

    def test_an_image_that_the_graph_refuses_fails_alone(self, tmp_path: Path) -> None:
        model = SharedModel(ModelSettings(str(save_graph(tmp_path / "m.onnx", (1, 3, None, None)))))
        good, bad = images(1, (3, 9, 9))[0], images(1, (3, 1, 1))[0]
        first, second, third = model.embed_each([good, bad, good])
        np.testing.assert_array_equal(first, third)
        assert second.reason in ("model_error", "not_finite")

    def test_no_memory_is_the_machines_fault(self, tmp_path: Path) -> None:
        graph = helper.make_graph(
            [
                helper.make_node("Expand", ["image", "sizes"], ["huge"]),
                helper.make_node("ReduceMean", ["huge"], ["embedding"], axes=[2, 3], keepdims=0),
            ],
            "huge",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, 1, 1])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", 3])],
            [numpy_helper.from_array(np.array([1, 3, 10**6, 10**7]), "sizes")],
        )
        with pytest.raises(MachineFault, match=r"smaller --batch_size: .*allocate memory"):
            load(save(tmp_path / "m.onnx", graph))

    def test_one_result_for_several_images_is_an_error(self, tmp_path: Path) -> None:
        graph = helper.make_graph(
            [helper.make_node("ReduceMean", ["image"], ["embedding"], axes=[0, 2, 3], keepdims=0)],
            "one",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, 8, 8])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)],
        )
        with pytest.raises(UsageError, match="cannot be run: the model gave 3 results for 1"):
            load(save(tmp_path / "m.onnx", graph))


def test_the_graphs_of_these_tests_compute_something() -> None:
    values = expected(images(2), onnx_graphs.weights())
    assert np.abs(values[0] - values[1]).max() > 0.01
