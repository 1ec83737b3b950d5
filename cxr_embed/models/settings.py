"""Which model to run, and how: small values that travel to workers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cxr_embed.models import fetch
from cxr_embed.models.config import ModelConfig

DEVICES = ("auto", "cpu", "gpu", "tpu")
PRECISIONS = ("float32", "bfloat16")


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
        if len(folders) == 1 and not folders[0].is_dir() and is_saved_model(path):
            folders = [Path(path)]
        return [str(folder) for folder in folders]


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


def is_saved_model(path: str) -> bool:
    """Whether a folder is a TensorFlow SavedModel."""
    return any(Path(path, name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))
