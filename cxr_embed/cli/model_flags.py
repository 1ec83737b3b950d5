"""Which model the main job's flags ask for: a folder, a bucket, the reference, or an endpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cxr_embed import models
from cxr_embed.errors import UsageError
from cxr_embed.models.config import ModelConfig, read_model_config

if TYPE_CHECKING:
    from cxr_embed.cli import flags as cli_flags
    from cxr_embed.cli import terminal

# A 16-bit radiograph of usual size as a PNG in base64.
_FULL_SIZE_BYTES = 8_000_000


# The published command names no location.
DEFAULT_LOCATION = "us-central1"


def endpoint_of(values: cli_flags.FlagSet) -> models.Endpoint | None:
    """Returns the hosted endpoint that was asked for, if any.

    Raises:
        UsageError: a part of its name is missing or cannot be, or other flags contradict it.
    """
    names = ("embeddings_project", "endpoint_location", "endpoint_id")
    given = [values[name].value for name in names]
    if given == [None, DEFAULT_LOCATION, None]:
        return None
    for name, value in zip(names, given, strict=True):
        # It becomes part of a host name or of a path there.
        if not value:
            raise UsageError(
                f"--{name} is missing: a hosted endpoint needs --embeddings_project and "
                "--endpoint_id"
            )
        pattern = r"[\w.:-]+" if name == names[0] else r"[\w-]+"
        if not re.fullmatch(pattern, value, re.ASCII):
            raise UsageError(f"--{name} {value} is not a valid name")
    for name in ("model_path", "engine", "device", "precision"):
        if values[name].value != values[name].default:
            raise UsageError(f"--{name} cannot be used with --endpoint_id")
    return models.Endpoint(*given)


def model_settings(values: cli_flags.FlagSet, log: terminal.Log) -> models.ModelSettings:
    """Returns which model to use; logs what the user should know of it.

    Args:
        values: the main job's flags.
        log: logs one line.

    Raises:
        UsageError: the flags contradict each other, or the model cannot be fetched or made.
    """
    config = read_model_config(values.model_config) if values.model_config else ModelConfig()
    endpoint = endpoint_of(values)
    if endpoint is not None:
        log(f"warning: the images leave this machine: each is sent to {endpoint.name}")
        limit = config.endpoint.max_request_bytes
        if not (config.size or config.bits) and limit < _FULL_SIZE_BYTES:
            log(
                f"warning: a 16-bit radiograph of full size rarely fits into {limit} bytes a "
                "request: docs/models.md shows how a model config reduces it"
            )
        return models.ModelSettings.of_endpoint(endpoint, config)
    path = _model_path(values, log)
    return models.ModelSettings.of_path(
        path,
        config=config,
        device=values.device,
        engine=values.engine or "",
        precision=values.precision,
        batch_size=values.batch_size,
        log=log,
    )


def _model_path(values: cli_flags.FlagSet, log: terminal.Log) -> str:
    """Returns the model's folder or file, local or an address."""
    if values.model_path:
        return str(values.model_path)
    from cxr_embed.efficientnet import reference

    log(
        "warning: no --model_path: using the reference EfficientNet-L2 with random weights. "
        "Untrained embeddings carry no clinical meaning; docs/models.md shows how to get trained "
        "weights."
    )
    return reference.ensure_reference_model(log)
