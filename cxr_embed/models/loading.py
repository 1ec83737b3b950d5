"""The registry of engines; loads a model with one of them.

To add an engine, write a class with the members of `protocol.EmbeddingModel` whose constructor
takes `ModelSettings`, and add it to `ENGINES`. If it runs other files than SavedModels, it has an
attribute `kind`, a `kinds.ModelKind`. Another package registers an engine as an entry point of the
group `cxr_embed.engines`; the entry point's name is the value of `--engine`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.kinds import ModelKind

if TYPE_CHECKING:
    from cxr_embed.models.protocol import EmbeddingModel
    from cxr_embed.models.settings import ModelSettings

_GROUP = "cxr_embed.engines"

# The keys are the values of --engine, except `vertex`, which is used for every endpoint. Of the
# engines that run a kind of model, the first is the default.
ENGINES: dict[str, str] = {
    "tensorflow": "cxr_embed.models.tensorflow.saved_model:SavedModel",
    "openvino": "cxr_embed.models.openvino:OpenVinoModel",
    "onnxruntime": "cxr_embed.models.onnx.model:OnnxModel",
    "vertex": "cxr_embed.models.vertex:VertexModel",
}

_DEFAULT = "tensorflow"
_ANY_FILES = ModelKind()


def engine_names() -> list[str]:
    """Returns the valid values of `--engine`."""
    others = [point.name for point in importlib.metadata.entry_points(group=_GROUP)]
    return [*(name for name in ENGINES if name != "vertex"), *others]


def engine_for(path: str, names: Collection[str] | None = None) -> str:
    """Returns the default engine of a model.

    Args:
        path: where the model is.
        names: the names of its files, relative to `path`, or the name of the only file; by default
            they are read from the local disk.
    """
    return next(_engines_that_run(names_at(path) if names is None else names), _DEFAULT)


def names_at(path: str) -> list[str]:
    """Returns the names of the files of a local model: its own, or those in its folder."""
    place = Path(path)
    try:
        return [each.name for each in place.iterdir()] if place.is_dir() else [place.name]
    except OSError:
        return []


def kind_of(engine: str) -> ModelKind:
    """Returns the kind of model that an engine runs."""
    kind: ModelKind = getattr(engine_class(engine), "kind", _ANY_FILES)
    return kind


def package_of(engine: str) -> str:
    """Returns the name of the package whose version is an engine's version."""
    for point in importlib.metadata.entry_points(group=_GROUP, name=engine):
        if engine not in ENGINES and point.dist is not None:
            return point.dist.name
    return engine


def precision_of(settings: ModelSettings) -> str:
    """Returns what a model computes in, such as `float32`."""
    return kind_of(settings.engine).precision(settings)


def check_is_there(settings: ModelSettings) -> None:
    """Checks that a model and all its parts exist and that the engine runs their kind.

    Raises:
        UsageError: a part is missing or incomplete, or another engine runs it.
    """
    if settings.endpoint is not None:
        return
    kind = kind_of(settings.engine)
    _refuse_other_kinds(settings.local_path, settings.engine, kind)
    for path in kind.parts(settings):
        _refuse_other_kinds(path, settings.engine, kind)
        kind.check(path)


def load(settings: ModelSettings) -> EmbeddingModel:
    """Loads a model.

    Raises:
        UsageError: the model cannot be used, or the device or engine is not available.
    """
    check_is_there(settings)
    engine = engine_class(settings.engine)
    if settings.config.outputs and not getattr(engine, "takes_several_outputs", False):
        what = "a hosted endpoint" if settings.endpoint else f"--engine={settings.engine}"
        raise UsageError(f"{what} gives one embedding: [[output]] in the model config needs others")
    model: EmbeddingModel = engine(settings)
    return model


def engine_class(name: str) -> Any:
    """Returns the class of an engine.

    Raises:
        UsageError: no engine has this name, or the package that registers it cannot be imported.
    """
    if name in ENGINES:
        module, _, member = ENGINES[name].partition(":")
        return getattr(importlib.import_module(module), member)
    for point in importlib.metadata.entry_points(group=_GROUP, name=name):
        try:
            return point.load()
        except Exception as error:
            raise UsageError(
                f"--engine={name} of the package {package_of(name)} cannot be imported: "
                f"{one_line(error)}"
            ) from error
    raise UsageError(f"--engine {name} is not known: one of {', '.join(engine_names())}")


def _refuse_other_kinds(path: str, engine: str, kind: ModelKind) -> None:
    names = names_at(path)
    others = [] if kind.claims(names) else list(_engines_that_run(names))
    if others:
        raise UsageError(
            f"--engine={engine} does not run {kind_of(others[0]).label}, which --model_path {path} "
            f"is: pass --engine={' or --engine='.join(others)}"
        )


def _engines_that_run(names: Collection[str]) -> Iterator[str]:
    for engine in engine_names():
        with contextlib.suppress(UsageError):  # another package's engine, which was not asked for
            if kind_of(engine).claims(names):
                yield engine
