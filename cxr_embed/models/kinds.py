"""Kinds of models: which files make up a model, and what they say of it before it is loaded.

An engine (see `loading`) has a kind: `SavedModelKind` for TensorFlow and OpenVINO, `OnnxKind` for
ONNX Runtime. An engine of another package may have its own subclass of `ModelKind`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    from cxr_embed.models.settings import ModelSettings
    from cxr_embed.models.signature import Wiring

# What `export-model` writes beside a model.
DESCRIPTION_FILE = "cxr_embed_model.json"


class ModelKind:
    """A kind of model. This class itself stands for one file, or one folder, of any content.

    Attributes:
        label: the kind's name for messages.
        suffix: suffix of the file's name if a model is one main file, in lower case; else None.
        default_layout: axis order of images where the shape does not show it.
    """

    label = "a model"
    suffix: str | None = None
    default_layout = "NHWC"

    def claims(self, names: Collection[str]) -> bool:
        """Whether these files are a model of this kind, so that `--engine` need not be passed.

        Args:
            names: the file's name, or the names of the files in the folder.
        """
        return bool(self.main_files(names))

    def main_files(self, names: Collection[str]) -> list[str]:
        """Returns the names that have the suffix, those in folders left out."""
        return sorted(
            name for name in names if "/" not in name and Path(name).suffix.lower() == self.suffix
        )

    def check_names(self, path: str, names: Collection[str]) -> None:
        """Raises UsageError if a remote model's names show that it cannot be run.

        Args:
            path: the model's address.
            names: as for `claims`, with those in folders, before any file is fetched.
        """

    def parts(self, settings: ModelSettings) -> list[str]:
        """Returns the local paths of the models that run one after the other, usually one."""
        return [settings.local_path]

    def check(self, path: str) -> None:
        """Raises UsageError if the model at a path is missing, incomplete or of another kind."""
        if not Path(path).exists():
            raise UsageError(f"--model_path {path} does not exist")

    def content(self, path: str) -> dict[str, Path]:
        """Returns the files that determine the embeddings, by their names relative to the model."""
        root = Path(path)
        if root.is_file():
            return {root.name: root}
        return {f.relative_to(root).as_posix(): f for f in root.rglob("*") if f.is_file()}

    def companions(self, file: Path) -> Collection[str]:
        """Returns the further files that a model's main file needs, relative to its folder."""
        del file
        return ()

    def precision(self, settings: ModelSettings) -> str:
        """Returns what the model computes in: what was asked for, unless its files decide it."""
        return settings.precision

    def wirings(self, settings: ModelSettings) -> list[Wiring] | None:
        """Returns how each part is called, without loading it; None if it must be loaded."""
        del settings
        return None
