"""Model configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cxr_embed.errors import UsageError
from cxr_embed.models.config import (
    ModelConfig,
    StageConfig,
    read_model_config,
    ready_configs,
)
from cxr_embed.models.outputs import chain


def written(folder: Path, text: str) -> str:
    path = folder / "model.toml"
    path.write_text(text)
    return str(path)


def test_all_keys(tmp_path: Path) -> None:
    config = read_model_config(
        written(
            tmp_path,
            """
            signature = "embed"
            [input]
            name = "image"
            size = [1024, 768]
            range = [-1, 1]
            [output]
            name = "features"
            embedding_size = 1376
            """,
        )
    )
    assert config == ModelConfig("embed", "image", (1024, 768), (-1.0, 1.0), "features", 1376)
    assert config.as_dict() == {
        "signature": "embed", "input_name": "image", "size": [1024, 768], "range": [-1.0, 1.0],
        "output_name": "features", "embedding_size": 1376,
    }  # fmt: skip


def test_preprocessing_as_published_models_want_it(tmp_path: Path) -> None:
    config = read_model_config(
        written(
            tmp_path,
            """
            [input]
            mean = [0.48, 0.46, 0.41]
            std = 0.25
            layout = "NCHW"
            resize = "shortest_edge"
            shortest_edge = 256
            crop = "torchvision"
            interpolation = "bicubic"
            bits = 8
            """,
        )
    )
    assert config.as_dict() == {
        "mean": [0.48, 0.46, 0.41], "std": [0.25], "layout": "NCHW",
        "resize": "shortest_edge", "shortest_edge": 256, "crop": "torchvision",
        "interpolation": "bicubic", "bits": 8,
    }  # fmt: skip
    assert ModelConfig.from_dict(config.as_dict()) == config


def test_stages(tmp_path: Path) -> None:
    config = read_model_config(
        written(
            tmp_path,
            """
            [input]
            size = [1280, 1280]
            preprocessing = "elixr_c"
            [output]
            pooling = "flatten"
            [[stage]]
            folder = "a"
            feed = "x:0"
            fetch = "y:0"
            pool = [5, 5]
            [[stage]]
            folder = "b"
            input = "image_feature"
            constants = { ids = 0, paddings = 0.5 }
            batch = 1
            """,
        )
    )
    assert chain(config) == (
        StageConfig("a", feed="x:0", fetch="y:0", pool=(5, 5)),
        StageConfig("b", input="image_feature", constants=(("ids", 0), ("paddings", 0.5)), batch=1),
    )
    assert config.as_dict() == json.loads(json.dumps(config.as_dict()))
    assert config.as_dict() == {
        "size": [1280, 1280], "preprocessing": "elixr_c", "pooling": "flatten",
        "stages": [
            {"folder": "a", "feed": "x:0", "fetch": "y:0", "pool": [5, 5]},
            {"folder": "b", "input": "image_feature", "batch": 1,
             "constants": [["ids", 0], ["paddings", 0.5]]},
        ],
    }  # fmt: skip


def test_how_to_speak_to_an_endpoint_changes_no_number(tmp_path: Path) -> None:
    config = read_model_config(written(tmp_path, "[endpoint]\nmax_request_bytes = 10_000_000"))
    assert config.endpoint.max_request_bytes == 10_000_000
    assert config.as_dict() is None


def test_a_bare_name_is_a_ready_config() -> None:
    assert read_model_config("elixr_v2_contrastive").embedding_size == 4096
    with pytest.raises(UsageError, match=r"one of the included configs \(.*elixr_c_v2"):
        read_model_config("elixr_v3")


@pytest.mark.parametrize("name", sorted(ready_configs()))
def test_every_ready_config_is_sound_and_says_what_it_is(name: str) -> None:
    path = ready_configs()[name]
    read_model_config(str(path))
    assert path.read_text().startswith("# ")
    docs = (Path(__file__).parents[2] / "docs/models.md").read_text()
    assert f"`{name}`" in docs


def test_nothing_said_is_nothing_fixed(tmp_path: Path) -> None:
    assert read_model_config(written(tmp_path, "")) == ModelConfig()
    assert ModelConfig().as_dict() is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[input", "is not TOML"),
        ("[input]\nsiez = [1, 1]", r"unknown key input.siez; known: name, size, range"),
        ("kind = 'image'", "unknown key kind"),
        ("input = 3", r"must be a table, \[input\]"),
        ("[input]\nsize = 475", "input.size must be a list of two numbers"),
        ("[input]\nsize = [475, 'x']", "input.size must be int"),
        ("[output]\nembedding_size = 40.5", "output.embedding_size must be int"),
        ("[output]\nname = 3", "output.name must be str"),
        ("[output]\npooling = 'max'", "output.pooling must be one of flatten, mean, not 'max'"),
        ("[input]\nbits = 12", "input.bits must be one of 8"),
        ("[input]\nmean = 'x'", "input.mean must be float, not 'x'"),
        ("[input]\nmean = [1, 2]", "input.mean must be one number, or a list of one per channel"),
        ("[input]\nmean = nan", "input.mean must be finite"),
        ("[input]\nlayout = 'CHW'", "input.layout must be one of NHWC, NCHW, not 'CHW'"),
        ("[input]\nstd = [0.2, 0, 0.2]", "input.std must be above 0, not 0.0"),
        ("[input]\nrange = [1, 1]", "input.range must be two different numbers"),
        (
            "[input]\nresize = 'crop'",
            "input.resize must be one of stretch, shortest_edge, pad, not 'crop'",
        ),
        (
            "[input]\ninterpolation = 'lanczos'",
            "input.interpolation must be one of area, bilinear, bicubic, gaussian, not 'lanczos'",
        ),
        ("[input]\nresize = 'shortest_edge'\ncrop = 1", "input.crop must be one of transformers,"),
        ("[input]\nresize = 'shortest_edge'\nshortest_edge = 0", "must be at least 1"),
        (
            "[input]\nshortest_edge = 256",
            'input.shortest_edge needs input.resize = "shortest_edge"',
        ),
        ("[input]\nresize = 'pad'\ncrop = 'torchvision'", "input.crop needs input.resize"),
        (
            "[input]\nresize = 'shortest_edge'\nshortest_edge = 9\ncrop = 'torchxrayvision'",
            "input.shortest_edge does not apply",
        ),
        ("[stage]\nfolder = 'a'", r"stage must be a list of tables, \[\[stage\]\]"),
        ("[[stage]]\nfolders = 'a'", "unknown key stage.folders"),
        ("[[stage]]\nfolder = '../a'", "stage.folder must be below --model_path"),
        ("[[stage]]\nfeed = 'a:0'", "stage.feed and stage.fetch go together"),
        ("[[stage]]\nconstants = { ids = 'x' }", "stage.constants.ids must be float"),
        ("[[stage]]\nconstants = 3", "stage.constants must be a table"),
        ("[[stage]]\nbatch = 0", "stage.batch must be at least 1"),
        ("signature = 'a'\n[[stage]]\nfolder = 'a'", "with \\[\\[stage\\]\\]"),
        ("[endpoint]\nparallel_requests = 0", "endpoint.parallel_requests must be at least 1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_model_config(written(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_model_config(str(tmp_path / "none.toml"))
