"""Model settings: the values that a worker needs to load a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cxr_embed.models import fetch, hub, loading
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
        """The full resource name in Google Cloud."""
        return f"projects/{self.project}/locations/{self.location}/endpoints/{self.id}"


@dataclass(frozen=True)
class ModelSettings:
    """The values that a worker needs to load a model; they can be pickled.

    Attributes:
        path: the model's folder or file, local, in a bucket or hf://, as the user gave it; for an
            endpoint its name.
        config: input and output of the model beyond its signature.
        device: `auto`, `cpu`, `gpu` or `tpu`.
        engine: a key of `loading.ENGINES`, or another package's; by default that of the model's
            kind, as far as it can be seen on the local disk.
        precision: `float32` or `bfloat16`; `hosted` for an endpoint.
        batch_size: requested images per call; 0 is the model's default.
        endpoint: the hosted endpoint to call instead of a local model.
        revision: for a model in a bucket or on the Hub, what all workers must download; see
            `fetch.revision_of`.
        content: the result of `content_id` in the launcher; workers reject any other model.
    """

    path: str
    config: ModelConfig = field(default_factory=ModelConfig)
    device: str = "auto"
    engine: str = ""
    precision: str = "float32"
    batch_size: int = 0
    endpoint: Endpoint | None = None
    revision: str = ""
    content: str = ""

    def __post_init__(self) -> None:
        if not self.engine:
            object.__setattr__(self, "engine", loading.engine_for(self.path))

    @classmethod
    def of_path(
        cls,
        path: str,
        *,
        engine: str = "",
        log: Callable[[str], None] = lambda line: None,
        **others: Any,
    ) -> ModelSettings:
        """Returns the settings of a model as `--model_path` takes it.

        If it is remote, its revision and the names of its files are looked up, and no file of it
        is fetched if they show that it cannot be run.

        Args:
            path: the model's folder or file, local, in a bucket or hf://.
            engine: as the attribute.
            log: logs one line for the user if the model has to be fetched.
            others: the other attributes.

        Raises:
            UsageError: the model cannot be found or fetched.
        """
        if not fetch.is_remote(path):
            return cls(path, engine=engine, **others)
        revision, names = fetch.look_up(path)
        settings = cls(path, engine=engine, revision=revision, **others)
        if not settings.is_here:
            names = hub.file_names(path, revision) if names is None else names
            log(f"fetching {path} into the cache, once")
        elif names is None:
            names = loading.names_at(settings.local_path)
        settings = replace(settings, engine=engine or loading.engine_for(path, names))
        if not settings.is_here:
            loading.kind_of(settings.engine).check_names(path, names)
        return settings

    @classmethod
    def of_endpoint(cls, endpoint: Endpoint, config: ModelConfig) -> ModelSettings:
        """Returns the settings of a hosted model."""
        return cls(endpoint.name, config, "auto", "vertex", "hosted", endpoint=endpoint)

    def with_content(self, content: str) -> ModelSettings:
        """Returns settings that only load a model with this content."""
        return replace(self, content=content)

    @property
    def hub_commit(self) -> str:
        """The commit of a model on the Hub; empty for all others."""
        return self.revision if hub.is_address(self.path) else ""

    @property
    def is_here(self) -> bool:
        """Whether the model is on this machine."""
        return not self.revision or fetch.is_here(self.path, self.revision, self._stage_folders)

    @property
    def local_path(self) -> str:
        """The local folder or file; the first call downloads a model in a bucket or on the Hub."""
        if not self.revision:
            return self.path
        return fetch.local_copy(self.path, self.revision, self._stage_folders)

    @property
    def _stage_folders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage.folder for stage in self.config.stages))


# Images per call and device. With one image, every call on a CPU has the same shape, so that an
# embedding does not depend on the other images to the last bit. Larger batches do not make a CPU
# faster.
_BATCH_SIZES = {"cpu": 1, "gpu": 16, "tpu": 16}


def batch_size_for(device: str) -> int:
    """Returns the default number of images per call on a kind of device.

    `auto` on remote workers counts as an accelerator. If the worker has only a CPU, the batch is
    run image by image.
    """
    return _BATCH_SIZES.get(device, _BATCH_SIZES["gpu"])


def default_batch_size(settings: ModelSettings) -> int:
    """Returns the number of images to collect for one call, before the model is loaded."""
    if settings.endpoint is not None:
        return settings.config.endpoint.parallel_requests
    # A class has this attribute if the engine runs one device only.
    fixed: int | None = getattr(loading.engine_class(settings.engine), "best_batch_size", None)
    return fixed or batch_size_for(settings.device)
