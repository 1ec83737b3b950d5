"""TensorFlow SavedModels as files: what a folder holds, and its signatures without its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models import outputs
from cxr_embed.models.config import StageConfig
from cxr_embed.models.kinds import ModelKind
from cxr_embed.models.signature import (
    TensorSpec,
    Wiring,
    choose_signature,
    wire,
)
from cxr_embed.models.tensorflow import runtime

if TYPE_CHECKING:
    from cxr_embed.models.settings import ModelSettings

_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")
# The files that determine a model's embeddings. Other files (notes, TensorFlow's fingerprint.pb
# with its random id) may differ between two copies of a model.
_CONTENT = (*_GRAPHS, "variables/*", "assets/*")
# Internal operations that a SavedModel lists among its signatures.
_OPERATIONS = ("__saved_model_init_op", "__saved_model_train_op")


class SavedModelKind(ModelKind):
    """A SavedModel, or a folder of the SavedModels of a chain."""

    label = "a TensorFlow SavedModel"

    def claims(self, names: Collection[str]) -> bool:
        """Whether a folder has a graph's file."""
        return any(name in _GRAPHS for name in names)

    def parts(self, settings: ModelSettings) -> list[str]:
        """Returns the folders of the stages. For a single model it may be the path itself."""
        path, stages = settings.local_path, outputs.chain(settings.config)
        folders = [Path(path, stage.folder) for stage in stages]
        if len(folders) == 1 and not folders[0].is_dir() and _is_saved_model(path):
            folders = [Path(path)]
        return [str(folder) for folder in folders]

    def check_names(self, path: str, names: Collection[str]) -> None:
        """Raises UsageError if no folder is a SavedModel's."""
        if not any(PurePosixPath(name).name in _GRAPHS for name in names):
            graphs = [name for name in names if name.lower().endswith(".onnx")]
            hint = f": pass one of its ONNX graphs, such as {path}/{min(graphs)}" if graphs else ""
            raise UsageError(f"--model_path {path} {_no_graph(self.label)}{hint}")

    def check(self, path: str) -> None:
        """Raises UsageError if `path` is not the folder of a SavedModel."""
        if not Path(path).is_dir():
            raise UsageError(f"--model_path {path} does not exist or is not a folder")
        if not _is_saved_model(path):
            raise UsageError(f"--model_path {path} {_no_graph(self.label)}")

    def content(self, path: str) -> dict[str, Path]:
        """Returns the graph, the variables and the assets."""
        root = Path(path)
        return {
            file.relative_to(root).as_posix(): file
            for pattern in _CONTENT
            for file in root.glob(pattern)
            if file.is_file()
        }

    def wirings(self, settings: ModelSettings) -> list[Wiring] | None:
        """Reads the signatures; a part of a graph has none."""
        stages = list(zip(self.parts(settings), outputs.chain(settings.config), strict=True))
        if any(stage.feed or stage.pool for _, stage in stages):
            return None
        return [_read_wiring(folder, stage) for folder, stage in stages]


def _no_graph(label: str) -> str:
    return f"is not {label}: it holds no saved_model.pb, and no .onnx file either"


def _is_saved_model(path: str) -> bool:
    return any(Path(path, name).is_file() for name in _GRAPHS)


def _read_wiring(folder: str, stage: StageConfig) -> Wiring:
    signatures = _read_signatures(folder)
    signature = signatures[choose_signature(list(signatures), stage.signature)]
    return wire(_specs(signature.inputs), _specs(signature.outputs), stage)


def _read_signatures(folder: str) -> dict[str, Any]:
    """Parses the graph's file without loading the variables."""
    runtime.import_tensorflow()
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    parsed = saved_model_pb2.SavedModel()
    binary, text = (Path(folder, name) for name in _GRAPHS)
    try:
        if binary.is_file():
            parsed.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse(text.read_text(), parsed)
        signatures = parsed.meta_graphs[0].signature_def
    except Exception as error:
        raise UsageError(f"--model_path {folder} cannot be read: {one_line(error)}") from error
    return {key: value for key, value in signatures.items() if key not in _OPERATIONS}


def _specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    tf = runtime.import_tensorflow()

    def spec(info: Any) -> TensorSpec:
        shape = info.tensor_shape
        sizes = tuple(None if axis.size < 0 else int(axis.size) for axis in shape.dim)
        return TensorSpec(tf.as_dtype(info.dtype).name, None if shape.unknown_rank else sizes)

    return {name: spec(info) for name, info in tensors.items()}


SAVED_MODEL = SavedModelKind()
