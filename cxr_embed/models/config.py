"""Model configs: TOML files that describe a model's input and output beyond its signature.

Every key is optional. docs/models.md explains them. The configs in configs/models/ can be given by
their bare names.

signature = "serving_default"     # the signature to call

[input]
name = "image"                    # the input of the signature
size = [1024, 1024]               # rows, columns, if the signature leaves them open
range = [0.0, 1.0]                # scale the pixels' full range to this (float inputs)
mean = [0.485, 0.456, 0.406]      # then subtract this, one number or one per channel (float inputs)
std = [0.229, 0.224, 0.225]       # and divide by this
layout = "NCHW"                   # or "NHWC": the order of axes, if the shape fits both
resize = "shortest_edge"          # or "pad"; without it, the aspect ratio is not kept ("stretch")
shortest_edge = 518               # for resize = "shortest_edge"; by default the longer side of size
crop = "torchvision"              # whose centre: also "transformers" (default), "torchxrayvision"
interpolation = "bicubic"         # or "area" (default), "bilinear", "gaussian"
bits = 8                          # make an 8-bit image first; PNG inputs: send the upper 8 bits
preprocessing = "elixr_c"         # that of elixr-c-v2-pooled's graph, for a [[stage]].feed

[output]
name = "embedding"                # the output of the signature
pooling = "flatten"               # or "mean": reduces an output with more axes to one vector
embedding_size = 4096             # any other size is an error

[[output]]                        # instead of [output]: several embeddings from one pass
name = "general"                  # for people, and the folder of its records
tensor = "feature_maps_0"         # the output of the signature
stage = "a"                       # with [[stage]]: the folder of the stage; by default the last
pooling = "mean"                  # as in [output], likewise embedding_size

[[stage]]                         # instead of the names above: a chain of models
folder = "a"                      # below --model_path
signature = "serving_default"
input = "image_feature"
output = "img_emb"
constants = { ids = 0 }           # inputs with a constant value
feed = "network/input:0"          # instead of input and output: tensors of a TensorFlow 1 graph
fetch = "network/output:0"
batch = 1                         # images per call, if the signature leaves it open
pool = [5, 5]                     # average over blocks of rows x columns of the output

[endpoint]                        # a hosted endpoint
address = "1.2-3.prediction.vertexai.goog"
max_request_bytes = 1500000
parallel_requests = 8
timeout_seconds = 120
retry_seconds = 600
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cxr_embed import storage
from cxr_embed.errors import UsageError, cannot_be_read

POOLINGS = ("flatten", "mean")
PREPROCESSINGS = ("elixr_c",)
# See `cxr_embed.models.resizing.Resizing`.
RESIZES = ("stretch", "shortest_edge", "pad")
CROPS = ("transformers", "torchvision", "torchxrayvision")
INTERPOLATIONS = ("area", "bilinear", "bicubic", "gaussian")
LAYOUTS = ("NHWC", "NCHW")
# The keys of [input] for models that take arrays of pixels.
IMAGE_KEYS = (
    "range", "mean", "std", "layout", "resize", "shortest_edge", "crop", "interpolation",
    "preprocessing",
)  # fmt: skip

_KEYS: dict[str, tuple[str, ...]] = {
    "": ("signature", "input", "output", "stage", "endpoint"),
    "input": ("name", "size", *IMAGE_KEYS, "bits"),
    "output": ("name", "pooling", "embedding_size"),
    "[output]": ("name", "tensor", "pooling", "stage", "embedding_size"),
    "stage": (
        "folder", "signature", "input", "output", "constants", "feed", "fetch", "batch", "pool",
    ),
    "endpoint": (
        "address", "max_request_bytes", "parallel_requests", "timeout_seconds", "retry_seconds",
    ),
}  # fmt: skip

# In the installed package, and in the repository.
_READY = tuple(Path(__file__).parents[level] / "configs" / "models" for level in (1, 2))


@dataclass(frozen=True)
class StageConfig:
    """One SavedModel of a chain. None means that the value is inferred from the signature.

    Attributes:
        folder: folder of the model, relative to --model_path.
        signature: key of the signature to call.
        input: the input for the images or for the previous stage's output.
        output: the output of the stage.
        constants: further inputs: (name, constant value).
        feed: a tensor of the graph that replaces the input.
        fetch: a tensor of the graph that replaces the output.
        batch: images per call; overrides the signature.
        pool: average the output over blocks of (rows, columns).
    """

    folder: str = "."
    signature: str | None = None
    input: str | None = None
    output: str | None = None
    constants: tuple[tuple[str, float], ...] = ()
    feed: str | None = None
    fetch: str | None = None
    batch: int | None = None
    pool: tuple[int, int] | None = None


@dataclass(frozen=True)
class EndpointConfig:
    """Settings of requests to a hosted endpoint; they do not change embeddings.

    Attributes:
        address: host (and port) to call; None is the default host of the location.
        max_request_bytes: larger requests are not sent. Google Cloud accepts 1.5 MB, or 10 MB at a
            dedicated endpoint.
        parallel_requests: maximum number of concurrent requests per worker process.
        timeout_seconds: maximum time to wait for a response.
        retry_seconds: how long to retry while the endpoint is busy or unavailable.
    """

    address: str | None = None
    max_request_bytes: int = 1_500_000
    parallel_requests: int = 8
    timeout_seconds: float = 120.0
    retry_seconds: float = 600.0


@dataclass(frozen=True)
class NamedOutput:
    """One of several embeddings. None means that the value is inferred, as for a single one.

    Attributes:
        name: for people; the embedding's records go into a folder of this name.
        tensor: the model's name of the output.
        pooling: see `ModelConfig.pooling`.
        stage: folder of the stage of a chain that gives the output; None is the last one.
        embedding_size: expected number of floats.
    """

    name: str
    tensor: str | None = None
    pooling: str | None = None
    stage: str | None = None
    embedding_size: int | None = None


@dataclass(frozen=True)
class ModelConfig:
    """Input and output of a model. None means that the value is inferred from the signature.

    Attributes:
        signature: key of the signature to call.
        input_name: the input for the images.
        size: (rows, columns) to resize to.
        range: (low, high) that the pixels' full range is scaled to; float inputs only.
        output_name: the output with the embedding.
        embedding_size: expected number of floats in an embedding.
        bits: 8 to make an 8-bit image first; PNG inputs get only the upper 8 bits of the pixels.
        preprocessing: one of `PREPROCESSINGS`, which replaces the default.
        pooling: one of `POOLINGS`, which reduces an output with more axes to one vector per image.
        stages: the models of a chain; empty for a single model.
        endpoint: settings of requests to a hosted endpoint.
        mean: subtracted after the range: one value, or one per channel; float inputs only.
        std: divided by after that, likewise.
        layout: one of `LAYOUTS`, the order of the input's axes.
        resize: one of `RESIZES`; None is `stretch`.
        shortest_edge: pixels of the shorter edge for the resize of that name.
        crop: one of `CROPS`, for the same; None is `transformers`.
        interpolation: one of `INTERPOLATIONS`; None is `area`.
        outputs: several embeddings from one pass; empty for a single one.
    """

    signature: str | None = None
    input_name: str | None = None
    size: tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    output_name: str | None = None
    embedding_size: int | None = None
    bits: int | None = None
    preprocessing: str | None = None
    pooling: str | None = None
    stages: tuple[StageConfig, ...] = ()
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None
    resize: str | None = None
    shortest_edge: int | None = None
    crop: str | None = None
    interpolation: str | None = None
    outputs: tuple[NamedOutput, ...] = ()

    def as_dict(self) -> dict[str, Any] | None:
        """Returns the values that are set, for the fingerprint; None if all are inferred."""
        chosen = {
            k: v for k, v in asdict(self).items() if v not in (None, (), False) and k != "endpoint"
        }
        if self.stages:
            chosen["stages"] = [
                {k: _listed(v) for k, v in asdict(stage).items() if v not in (None, ())}
                for stage in self.stages
            ]
        return {k: _listed(v) for k, v in chosen.items()} or None

    @classmethod
    def from_dict(cls, chosen: dict[str, Any] | None) -> ModelConfig:
        """Returns the config of a result of `as_dict`, without the endpoint's settings.

        Raises:
            TypeError: a key is unknown.
        """
        chosen = chosen or {}
        known = {k: _tupled(v) for k, v in chosen.items() if k not in ("stages", "outputs")}
        for name, kind in (("stages", StageConfig), ("outputs", NamedOutput)):
            tables = ({k: _tupled(v) for k, v in table.items()} for table in chosen.get(name, ()))
            known[name] = tuple(kind(**table) for table in tables)
        return cls(**known)


def _tupled(value: Any) -> Any:
    """Returns lists as tuples, the inverse of `_listed`."""
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    """Returns tuples as lists, the types that JSON has."""
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def ready_configs() -> dict[str, Path]:
    """Returns the paths of the included configs by their bare names."""
    folder = next(folder for folder in _READY if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_model_config(path: str) -> ModelConfig:
    """Reads a model config.

    Args:
        path: a local file or one in a bucket, or the bare name of an included config.

    Raises:
        UsageError: the file is missing or is not TOML, or a key or value is invalid.
    """
    try:
        parsed = tomllib.loads(storage.read_bytes(_find(path)).decode())
    except OSError as error:
        raise cannot_be_read(f"--model_config {path}", error) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--model_config {path} is not TOML: {error}") from error
    return _Reader(path).model(parsed)


def _find(path: str) -> str:
    if "/" in path or "." in path or Path(path).is_file():
        return path
    ready = ready_configs()
    if path not in ready:
        known = ", ".join(sorted(ready))
        raise UsageError(
            f"--model_config {path} cannot be read: neither a file nor one of the included "
            f"configs ({known})"
        )
    return str(ready[path])


class _Reader:
    """Converts parsed TOML to a `ModelConfig`; its errors contain the file and the key."""

    def __init__(self, path: str) -> None:
        self._path = path

    def model(self, parsed: dict[str, Any]) -> ModelConfig:
        self._check_keys("", parsed)
        image = self._table(parsed, "input")
        several = parsed.get("output") if isinstance(parsed.get("output"), list) else []
        output = {} if several else self._table(parsed, "output")
        config = ModelConfig(
            signature=self._typed("signature", parsed.get("signature"), str),
            input_name=self._typed("input.name", image.get("name"), str),
            size=self._pair("input.size", image.get("size"), int),
            range=self._pair("input.range", image.get("range"), float),
            output_name=self._typed("output.name", output.get("name"), str),
            embedding_size=self._typed("output.embedding_size", output.get("embedding_size"), int),
            bits=self._one_of("input.bits", image.get("bits"), (8,)),
            preprocessing=self._one_of(
                "input.preprocessing", image.get("preprocessing"), PREPROCESSINGS
            ),
            pooling=self._one_of("output.pooling", output.get("pooling"), POOLINGS),
            stages=self._stages(parsed.get("stage", [])),
            endpoint=self._endpoint(self._table(parsed, "endpoint")),
            mean=self._channels("input.mean", image.get("mean")),
            std=self._channels("input.std", image.get("std")),
            layout=self._one_of("input.layout", image.get("layout"), LAYOUTS),
            resize=self._one_of("input.resize", image.get("resize"), RESIZES),
            shortest_edge=self._typed(
                "input.shortest_edge", image.get("shortest_edge"), int, least=1
            ),
            crop=self._one_of("input.crop", image.get("crop"), CROPS),
            interpolation=self._one_of(
                "input.interpolation", image.get("interpolation"), INTERPOLATIONS
            ),
            outputs=tuple(self._output(table) for table in several or ()),
        )
        self._check_input(config)
        if config.stages and (config.signature or config.input_name or config.output_name):
            self._raise(
                "with [[stage]], set signature, input and output in each stage instead of "
                "signature, input.name and output.name"
            )
        self._check_outputs(config)
        return config

    def _output(self, table: Any) -> NamedOutput:
        if not isinstance(table, dict):
            self._raise("output must be a table, [output], or a list of tables, [[output]]")
        self._check_keys("[output]", table)
        texts = {
            key: self._typed(f"output.{key}", table.get(key), str)
            for key in ("name", "tensor", "stage")
        }
        name = texts.pop("name") or ""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
            self._raise(
                f"[[output]] needs a name of letters, digits, - and _, which names a folder, not "
                f"{name!r}"
            )
        return NamedOutput(
            name,
            **texts,
            pooling=self._one_of("output.pooling", table.get("pooling"), POOLINGS),
            embedding_size=self._typed("output.embedding_size", table.get("embedding_size"), int),
        )

    def _check_outputs(self, config: ModelConfig) -> None:
        folders = [stage.folder for stage in config.stages]
        for output in config.outputs:
            if output.stage is not None and output.stage not in folders:
                self._raise(
                    f"output.stage {output.stage!r} is not the folder of a [[stage]]"
                    + (f"; there are {', '.join(folders)}" if folders else "")
                )
        names = [output.name.lower() for output in config.outputs]
        double = [output.name for output in config.outputs if names.count(output.name.lower()) > 1]
        if double:
            self._raise(f"two [[output]] tables have the name {double[0]!r}")

    def _check_input(self, config: ModelConfig) -> None:
        if config.range is not None and config.range[0] == config.range[1]:
            self._raise(f"input.range must be two different numbers, not {list(config.range)}")
        if config.std is not None and min(config.std) <= 0:
            self._raise(f"input.std must be above 0, not {min(config.std)!r}")
        for key in ("shortest_edge", "crop"):
            if getattr(config, key) is not None and config.resize != "shortest_edge":
                self._raise(f'input.{key} needs input.resize = "shortest_edge"')
        if config.crop == "torchxrayvision" and config.shortest_edge is not None:
            self._raise(
                'input.shortest_edge does not apply: input.crop = "torchxrayvision" cuts first and '
                "resizes to the model's size"
            )

    def _stages(self, tables: Any) -> tuple[StageConfig, ...]:
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self._raise("stage must be a list of tables, [[stage]]")
        return tuple(self._stage(table) for table in tables)

    def _stage(self, table: dict[str, Any]) -> StageConfig:
        self._check_keys("stage", table)
        names = ("folder", "signature", "input", "output", "feed", "fetch")
        texts = {k: self._typed(f"stage.{k}", table[k], str) for k in names if k in table}
        if ("feed" in texts) != ("fetch" in texts):
            self._raise("stage.feed and stage.fetch go together")
        folder = texts.get("folder", ".")
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            self._raise(f"stage.folder must be below --model_path, not {folder!r}")
        constants = table.get("constants", {})
        if not isinstance(constants, dict):
            self._raise("stage.constants must be a table of numbers")
        return StageConfig(
            **texts,
            constants=tuple(
                (name, self._typed(f"stage.constants.{name}", value, float))
                for name, value in constants.items()
            ),
            batch=self._typed("stage.batch", table.get("batch"), int, least=1),
            pool=self._pair("stage.pool", table.get("pool"), int),
        )

    def _endpoint(self, table: dict[str, Any]) -> EndpointConfig:
        kinds = {"address": str, "timeout_seconds": float, "retry_seconds": float}
        return EndpointConfig(
            **{
                key: self._typed(f"endpoint.{key}", value, kinds.get(key, int), least=1)
                for key, value in table.items()
            }
        )

    def _table(self, parsed: dict[str, Any], name: str) -> dict[str, Any]:
        table = parsed.get(name, {})
        if not isinstance(table, dict):
            self._raise(f"{name} must be a table, [{name}]")
        self._check_keys(name, table)
        return dict(table)

    def _check_keys(self, table: str, section: dict[str, Any]) -> None:
        for key in section:
            if key not in _KEYS[table]:
                where = f"{table}.{key}" if table else key
                self._raise(f"unknown key {where}; known: {', '.join(_KEYS[table])}")

    def _typed(self, key: str, value: Any, kind: type, least: float | None = None) -> Any:
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = is_number and (kind is float or value == int(value)) if kind is not str else True
        if not fits or (kind is str and not isinstance(value, str)):
            self._raise(f"{key} must be {kind.__name__}, not {value!r}")
        if least is not None and kind is not str and value < least:
            self._raise(f"{key} must be at least {least}, not {value!r}")
        return kind(value)

    def _one_of(self, key: str, value: Any, known: tuple[Any, ...]) -> Any:
        if value is not None and value not in known:
            self._raise(f"{key} must be one of {', '.join(map(str, known))}, not {value!r}")
        return value

    def _pair(self, key: str, value: Any, kind: type) -> Any:
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            self._raise(f"{key} must be a list of two numbers")
        return tuple(self._typed(key, item, kind) for item in value)

    def _channels(self, key: str, value: Any) -> tuple[float, ...] | None:
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if len(values) not in (1, 3):
            self._raise(f"{key} must be one number, or a list of one per channel (1 or 3)")
        numbers = tuple(self._typed(key, item, float) for item in values)
        if not all(math.isfinite(number) for number in numbers):
            self._raise(f"{key} must be finite, not {value!r}")
        return numbers

    def _raise(self, what: str) -> NoReturn:
        raise UsageError(f"--model_config {self._path}: {what}")
