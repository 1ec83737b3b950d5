"""ONNX graphs as files: the .onnx file, its data files, and how the graph is called."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_embed.errors import UsageError
from cxr_embed.models import outputs
from cxr_embed.models.config import ModelConfig, StageConfig
from cxr_embed.models.kinds import ModelKind
from cxr_embed.models.onnx.graph_file import GraphFacts, read_graph
from cxr_embed.models.signature import Wiring, wire

if TYPE_CHECKING:
    from cxr_embed.models.settings import ModelSettings

_MAIN_FILE = "graph"  # its own name does not change the embeddings


class OnnxKind(ModelKind):
    """An .onnx file, or a folder that holds one; data files lie beside it."""

    label = "an ONNX graph"
    suffix = ".onnx"
    default_layout = "NCHW"  # what PyTorch exports

    def parts(self, settings: ModelSettings) -> list[str]:
        """Returns the path of the .onnx file."""
        return [str(_main_file(settings.local_path))]

    def check_names(self, path: str, names: Collection[str]) -> None:
        """Raises UsageError if a folder does not hold exactly one graph."""
        _only_graph(path, names)

    def check(self, path: str) -> None:
        """Raises UsageError if a file is missing, shorter than the graph needs, or damaged."""
        super().check(path)
        folder = Path(path).parent
        for name, needed in read_graph(path).data_files.items():
            file = folder / name
            if not file.is_file():
                raise UsageError(
                    f"--model_path {path} needs its data file {name}, which is missing: put it "
                    "into the same folder"
                )
            if file.stat().st_size < needed:
                raise UsageError(
                    f"--model_path {path}: its data file {name} has {file.stat().st_size} bytes "
                    f"and the graph needs {needed}: copy it again"
                )

    def content(self, path: str) -> dict[str, Path]:
        """Returns the .onnx file and its data files."""
        file = Path(path)
        return {_MAIN_FILE: file, **{name: file.parent / name for name in self.companions(file)}}

    def companions(self, file: Path) -> Collection[str]:
        """Returns the names of the data files."""
        return read_graph(file).data_files

    def precision(self, settings: ModelSettings) -> str:
        """Returns the float type of the graph's weights."""
        return read_graph(self.parts(settings)[0]).float_type

    def wirings(self, settings: ModelSettings) -> list[Wiring]:
        """Reads how the graph is called.

        Raises:
            UsageError: it does not take one batch of images, or the settings do not fit to it.
        """
        config, facts = settings.config, read_graph(self.parts(settings)[0])
        if settings.device == "tpu":
            raise UsageError("--device=tpu: ONNX Runtime runs on CPUs and NVIDIA GPUs only")
        stage = _only_stage(config)
        _require_own_precision(facts, settings.precision)
        inputs = dict(facts.inputs)
        if stage.input in facts.defaults:
            inputs[stage.input] = facts.defaults[stage.input]
        wiring = wire(inputs or facts.defaults, facts.outputs, stage)
        if wiring.input.dtype == "string":
            raise UsageError(
                f"the model's input {wiring.input_name} is {wiring.input}: ONNX graphs are run on "
                "images only"
            )
        return [wiring]


def _main_file(path: str) -> Path:
    place = Path(path)
    if not place.is_dir():
        return place
    return place / _only_graph(path, [file.name for file in place.iterdir()])


def _only_graph(path: str, names: Collection[str]) -> str:
    found = ONNX.main_files(names)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"--model_path {path} holds no .onnx file")
    raise UsageError(
        f"--model_path {path} holds several .onnx files ({', '.join(found)}): pass one of them"
    )


def _only_stage(config: ModelConfig) -> StageConfig:
    if config.signature:
        raise UsageError("the model config sets signature, which an ONNX graph does not have")
    stage = outputs.chain(config)[0]
    if (
        len(outputs.chain(config)) > 1
        or stage.folder != "."
        or stage.feed
        or stage.pool
        or stage.signature
    ):
        raise UsageError(
            "an ONNX model is one graph: of [[stage]] it takes one table with input, output, "
            "constants and batch"
        )
    return stage


def _require_own_precision(facts: GraphFacts, precision: str) -> None:
    """A graph computes in the type that it was exported in; float32 means the graph's own."""
    if precision not in ("float32", facts.float_type):
        raise UsageError(
            f"--precision={precision}: this ONNX graph computes in {facts.float_type}: export it "
            f"in {precision}, or leave --precision out to run it as it is"
        )


ONNX = OnnxKind()
