"""Ways to run a model, behind one small protocol.

A way to run a model is a class with `EmbeddingModel`'s members; `load` picks it. Each process keeps
one model in memory, shared by its threads.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.models import fetch
from cxr_embed.models.config import ModelConfig
from cxr_embed.models.inputs import ImageInput
from cxr_embed.radiograph import Radiograph

DEVICES = ("auto", "cpu", "gpu", "tpu")
ENGINES = ("tensorflow", "openvino")
PRECISIONS = ("float32", "bfloat16")

# What decides a model's numbers. Other files beside them (notes, TensorFlow's fingerprint.pb with
# its random id) may differ between two copies of one model.
_CONTENT = ("saved_model.pb", "saved_model.pbtxt", "variables/*", "assets/*")


@dataclass(frozen=True)
class Endpoint:
    """A hosted Vertex AI endpoint: its Google Cloud project, location and id."""

    project: str
    location: str
    id: str

    @property
    def name(self) -> str:
        """Its full name, as Google Cloud writes it."""
        return f"projects/{self.project}/locations/{self.location}/endpoints/{self.id}"


@dataclass(frozen=True)
class ModelSettings:
    """All that a worker needs to load a model; small, and pickles.

    Attributes:
        path: folder of the SavedModel, or of the stages of a chain, local or gs://; an endpoint's
            name.
        config: how to feed and read it where its signature does not say so.
        device: `auto`, `cpu`, `gpu` or `tpu`.
        engine: `tensorflow`, `openvino`, or `vertex` for an endpoint.
        precision: `float32` or `bfloat16`; `hosted` for an endpoint.
        batch_size: images per call that were asked for; 0 leaves the choice to the model.
        endpoint: the hosted endpoint to call in place of a local model.
        revision: of a model in a bucket, so that no worker takes another one than was started with.
        content: what `content_id` gave where the run was started; workers refuse another one.
    """

    path: str
    config: ModelConfig = field(default_factory=ModelConfig)
    device: str = "auto"
    engine: str = "tensorflow"
    precision: str = "float32"
    batch_size: int = 0
    endpoint: Endpoint | None = None
    revision: str = ""
    content: str = ""

    @classmethod
    def of_endpoint(cls, endpoint: Endpoint, config: ModelConfig) -> ModelSettings:
        """Returns the settings of a hosted model, which leave it nothing to choose."""
        return cls(endpoint.name, config, "auto", "vertex", "hosted", endpoint=endpoint)

    def with_content(self, content: str) -> ModelSettings:
        """Returns settings with which only a model of that content is loaded."""
        return replace(self, content=content)

    @property
    def local_path(self) -> str:
        """The folder on this machine; a model in a bucket is fetched at the first call."""
        return fetch.local_folder(self.path, self.revision) if self.revision else self.path

    @property
    def folders(self) -> list[str]:
        """The SavedModels in order. A single one may also be what `path` itself names."""
        if self.endpoint is not None:
            return []
        path, stages = self.local_path, self.config.chain
        folders = [Path(path, stage.folder) for stage in stages]
        if len(folders) == 1 and not folders[0].is_dir() and _is_saved_model(path):
            folders = [Path(path)]
        return [str(folder) for folder in folders]


class EmbeddingModel(Protocol):
    """A loaded model. Its methods may be called from several threads.

    Attributes:
        input: what one image has to look like.
        embedding_size: floats in one embedding.
        device: where it runs, for people: `cpu`, `gpu` ...
        max_batch_size: the most images one call may get, None where the model takes any number.
        best_batch_size: images per call where the user leaves the choice.
    """

    input: ImageInput
    embedding_size: int
    device: str
    max_batch_size: int | None
    best_batch_size: int

    def fit(self, radiograph: Radiograph) -> Any:
        """Returns a radiograph as this model takes it: an array, or a serialized example."""
        ...

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        """Returns float32 of shape (n, embedding_size) for what `fit` returned.

        Raises:
            SomeFailed: the model knows which images failed and which did not.
            Exception: anything may be wrong with any image.
        """
        ...


class SomeFailed(Exception):
    """A batch of which some images have an embedding.

    Attributes:
        results: for each image its embedding, or why it has none.
    """

    def __init__(self, results: list[np.ndarray | Exception]) -> None:
        self.results = results
        super().__init__("some images of a batch failed")


def load(settings: ModelSettings) -> EmbeddingModel:
    """Loads a model.

    Raises:
        UsageError: there is no usable model at that path, or the device or engine is absent.
    """
    if settings.endpoint is not None:
        from cxr_embed.models.vertex import VertexModel

        return VertexModel(settings)
    check_is_there(settings)
    if settings.engine == "openvino":
        from cxr_embed.models.openvino import OpenVinoModel

        return OpenVinoModel(settings)
    from cxr_embed.models.saved_model import SavedModel

    return SavedModel(settings)


# Images a call and device. With one, every call on a CPU has the same shape, so an image's
# embedding never depends on its neighbours, to the last bit; more do not help a CPU anyway.
_BATCH_SIZES = {"cpu": 1, "gpu": 16, "tpu": 16}


def batch_size_for(device: str) -> int:
    """Returns how many images a call gets on a kind of device.

    `auto`, on workers that cannot be asked, counts as an accelerator: on a CPU a batch is then run
    image by image.
    """
    return _BATCH_SIZES.get(device, _BATCH_SIZES["gpu"])


def default_batch_size(settings: ModelSettings) -> int:
    """Returns how many images are collected for one call, before the model has been loaded."""
    if settings.endpoint is not None:
        return settings.config.endpoint.parallel_requests
    return 1 if settings.engine == "openvino" else batch_size_for(settings.device)


def check_is_there(settings: ModelSettings) -> None:
    """Raises UsageError where a model, or one of its stages, is not there."""
    for folder in settings.folders:
        check_is_saved_model(folder)


def content_id(settings: ModelSettings) -> str:
    """Returns what tells this model from any other: a hash of its content, all stages of it.

    Of a hosted one it is the endpoint's name, since nobody outside sees its content.
    """
    if settings.endpoint is not None:
        return settings.endpoint.name
    folders = settings.folders
    if len(folders) == 1:
        return content_hash(folders[0])
    hashes = "\n".join(content_hash(folder) for folder in folders)
    return hashlib.sha256(hashes.encode()).hexdigest()


def check_is_saved_model(path: str) -> None:
    """Raises UsageError where `path` is not the folder of a SavedModel."""
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"--model_path {path} does not exist or is not a folder")
    if not _is_saved_model(path):
        raise UsageError(
            f"--model_path {path} is not a TensorFlow SavedModel: it holds no saved_model.pb"
        )


def _is_saved_model(path: str) -> bool:
    return any(Path(path, name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def content_hash(path: str) -> str:
    """Returns the SHA-256 of all that decides a SavedModel's numbers, names included."""
    folder = Path(path)
    files = sorted(
        (file.relative_to(folder).as_posix(), file)
        for pattern in _CONTENT
        for file in folder.glob(pattern)
        if file.is_file()
    )
    # Once a process: the launcher asks for it, and so do the workers within the same process.
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for _, file in files)
    return _hash_of(state, tuple(name for name, _ in files))


@functools.lru_cache(maxsize=16)
def _hash_of(files: tuple[tuple[str, int, int], ...], names: tuple[str, ...]) -> str:
    with ThreadPoolExecutor(4) as pool:  # hashlib lets other threads run
        digests = list(pool.map(lambda file: _file_hash(Path(file[0])), files))
    total = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
