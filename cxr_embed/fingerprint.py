"""Everything that changes the numbers, in one place, so that no output ever mixes two of them."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from typing import Any

from cxr_embed import storage
from cxr_embed.decoders import ABSENT, decoder_versions
from cxr_embed.errors import UsageError
from cxr_embed.fit import PREPROCESSING_VERSION

CONFIG_NAME = "_embedding_config.json"

Fingerprint = dict[str, Any]


def make_fingerprint(
    *,
    model_sha256: str,
    model_config: dict[str, Any] | None,
    rendering: str,
    precision: str,
    engine: str,
) -> Fingerprint:
    """Returns the fingerprint of a run, ready for JSON.

    Args:
        model_sha256: hash of the model's content, or the name of a hosted model.
        model_config: the model config as parsed, or None where everything was inferred.
        rendering: `cxr_foundation` or `dicom`.
        precision: `float32` or `bfloat16`; `hosted` for an endpoint.
        engine: `tensorflow`, `openvino` or `vertex`.
    """
    return {
        "model_sha256": model_sha256,
        "model_config": model_config,
        "rendering": rendering,
        "preprocessing_version": PREPROCESSING_VERSION,
        "resize": f"opencv {importlib.metadata.version('opencv-python-headless')}",
        "precision": precision,
        "engine": engine,
        "engine_version": importlib.metadata.version(engine) if engine != "vertex" else "hosted",
        "decoders": decoder_versions(),
    }


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Returns the keys in which two fingerprints differ, nested ones as `decoders.pillow`.

    A decoder that only one of them has moves no number: without it, its images fail.
    """
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += [f"{key}.{inner}" for inner in differences(before, after)]
        elif before != after and ABSENT not in (before, after):
            found.append(key)
    return found


@dataclass(frozen=True)
class OutputConfig:
    """What `_embedding_config.json` says of an output.

    Attributes:
        fingerprint: how its records were made.
        embedding_size: floats in each of them.
    """

    fingerprint: Fingerprint
    embedding_size: int


def read_output_config(output_path: str) -> OutputConfig | None:
    """Returns how an output was made, or None where it does not say.

    Raises:
        UsageError: the file is there and cannot be read or understood.
    """
    path = storage.join(output_path, CONFIG_NAME)
    try:
        found = json.loads(storage.read_bytes(path))
        return OutputConfig(found, int(found.pop("embedding_size")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{path} is damaged, so nobody can tell how the records beside it were made: "
            "pass --overwrite to compute them again, or another --output_path"
        ) from error


def write_output_config(output_path: str, config: OutputConfig) -> None:
    """Writes `_embedding_config.json` at the output's root."""
    content = {**config.fingerprint, "embedding_size": config.embedding_size}
    data = json.dumps(content, indent=2, sort_keys=True) + "\n"
    storage.write_whole(storage.join(output_path, CONFIG_NAME), data.encode())
