"""Published encoders, from a DICOM file to the record, against their own code in PyTorch.

The architectures are the published ones with random weights, at their true width and resolution;
nothing is downloaded. MedSigLIP's image tower, which has 430 million parameters, has 2 of its 27
layers here. RAD-DINO, which sees more than 1,300 patches, is compared with 2 of its 12 layers, too,
where slow tests are left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import originals
import pytest
from running import run_here

import cxr_embed

ORIGINALS = {
    "rad-dino": originals.rad_dino,
    "medsiglip": originals.medsiglip,
    "biomedclip": originals.biomedclip,
    "torchxrayvision-densenet121": originals.xray_vision,
}
# Each with so many layers; None is all of them.
COMPARED = [
    ("rad-dino", 2), pytest.param(("rad-dino", None), marks=pytest.mark.slow), ("medsiglip", 2),
    ("biomedclip", None), ("torchxrayvision-densenet121", None),
]  # fmt: skip
FLOATS = {
    "rad-dino": 768, "medsiglip": 1152, "biomedclip": 512, "torchxrayvision-densenet121": 1024,
}  # fmt: skip
RADIOGRAPHS = ("RG1_UNCR", "RG3_UNCR")


class Exported(NamedTuple):
    """An encoder in PyTorch and as an ONNX graph, and its original preprocessing."""

    name: str
    network: Any
    graph: Path
    config: str
    preprocess: Callable[..., np.ndarray]


@pytest.fixture(scope="module", params=COMPARED, ids=lambda c: f"{c[0]}-{c[1] or 'all'}")
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exported]:
    import export_onnx

    name, layers = request.param
    graph = tmp_path_factory.mktemp(name) / "model.onnx"
    encoder = export_onnx.ENCODERS[name]
    network = export_onnx.build(name, export_onnx.RANDOM, seed=1, layers=layers)
    if layers:
        assert export_onnx.export(network, encoder.shape, graph) < 1e-4
    else:
        export_onnx.main([name, "--weights=random", "--seed=1", f"--output={graph}"])
    assert [file.name for file in graph.parent.iterdir()] == [graph.name]
    yield Exported(name, network, graph, encoder.config, ORIGINALS[name])
    shutil.rmtree(graph.parent)


def in_pytorch(network: Any, tensors: list[np.ndarray]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.concatenate([network(torch.from_numpy(t[np.newaxis])).numpy() for t in tensors])


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance of two vectors for one image, relative to the vector's length."""
    assert found.shape == expected.shape
    return float(
        (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max()
    )


@pytest.mark.convert
def test_a_dicom_file_gives_the_embedding_of_the_original_code(
    exported: Exported,
    real_radiographs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import onnxruntime

    pixels = [
        cxr_embed.read_radiograph(real_radiographs[f"{name}.dcm"]).pixels for name in RADIOGRAPHS
    ]
    tensors = [exported.preprocess(image) for image in pixels]
    expected = in_pytorch(exported.network, tensors)
    assert expected.shape == (2, FLOATS[exported.name])
    assert relative(expected[1:], expected[:1]) > 0.2  # the network tells them apart

    session = onnxruntime.InferenceSession(exported.graph)
    (same,) = session.run(None, {"image": np.stack(tensors)})
    assert relative(same, expected) < 1e-4

    inputs = tmp_path / "list.txt"
    inputs.write_text("".join(f"{real_radiographs[f'{name}.dcm']}\n" for name in RADIOGRAPHS))
    ran = run_here(
        capsys, input_list=inputs, output_path=tmp_path / "out", model_path=exported.graph,
        model_config=exported.config,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    loaded = cxr_embed.load_embeddings(str(tmp_path / "out"))
    assert loaded.ids == list(RADIOGRAPHS)
    print(exported.name, relative(loaded.values, expected))
    assert relative(loaded.values, expected) < 1e-4


def small_rad_dino(folder: Path) -> Any:
    from transformers import Dinov2Config, Dinov2Model

    network = Dinov2Model(Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2))
    network.save_pretrained(folder)
    return network


def small_medsiglip(folder: Path) -> Any:
    """As published: with the text tower, which is left out."""
    from transformers import SiglipConfig, SiglipModel

    sizes = {
        "hidden_size": 24, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    network = SiglipModel(SiglipConfig(text_config=sizes, vision_config=sizes))
    network.save_pretrained(folder)
    return network.vision_model


def small_biomedclip(folder: Path) -> Any:
    import torch
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    vision = {
        "timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False, "timm_pool": "",
        "timm_proj": "linear", "image_size": 224,
    }  # fmt: skip
    tower = _build_vision_tower(8, CLIPVisionCfg(**vision))
    described = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {}}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    state["text.proj.weight"] = torch.zeros(1)
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    return tower


def downloaded_densenet(file: Path) -> Any:
    """A pickled network, as torchxrayvision publishes them, with another number of classes."""
    import torch
    from torchxrayvision.models import DenseNet

    network = DenseNet(num_classes=7)
    torch.save(network, file)
    return network


@pytest.mark.convert
@pytest.mark.parametrize(
    ("name", "save", "shape"),
    [
        ("rad-dino", small_rad_dino, (3, 224, 224)),
        ("medsiglip", small_medsiglip, (3, 224, 224)),
        ("biomedclip", small_biomedclip, (3, 224, 224)),
        ("torchxrayvision-densenet121", downloaded_densenet, (1, 224, 224)),
    ],
)
def test_weights_are_read_as_they_are_published(
    name: str, save: Callable[[Path], Any], shape: tuple[int, int, int], tmp_path: Path
) -> None:
    import export_onnx
    import torch

    place = tmp_path / "weights.pt" if save is downloaded_densenet else tmp_path
    network = save(place).eval()
    image = torch.rand(1, *shape)
    with torch.no_grad():
        found = export_onnx.build(name, str(place))(image)
        expected = network.features2(image) if hasattr(network, "features2") else network(image)
    expected = getattr(expected, "pooler_output", expected)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.convert
@pytest.mark.parametrize(
    ("name", "save", "complaint"),
    [
        ("rad-dino", small_medsiglip, "holds a siglip model, not dinov2"),
        ("biomedclip", small_rad_dino, "is not a folder with open_clip_config.json"),
        ("torchxrayvision-densenet121", lambda folder: None, "pt does not exist"),
        ("rad-dino", lambda folder: None, "is not a folder with config.json"),
    ],
)
def test_weights_of_another_kind_are_one_line(
    name: str,
    save: Callable[[Path], Any],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(tmp_path)
    place = tmp_path / "no.pt" if name.startswith("torchx") else tmp_path
    assert complaint in one_line(capsys, name, f"--weights={place}", f"--output={tmp_path}/m.onnx")


def test_what_is_wrong_with_the_output_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "m.onnx"
    there.touch()
    for output, complaint in ((there, "pass --overwrite"), (tmp_path / "m", "must end in .onnx")):
        assert complaint in one_line(capsys, "rad-dino", "--weights=random", f"--output={output}")


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    import export_onnx

    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        export_onnx.main(list(arguments))
    line = capsys.readouterr().err
    assert (stopped.value.code, line.count("\n")) == (2, 1)
    return line
