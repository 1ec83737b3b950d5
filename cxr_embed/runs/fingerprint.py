"""The fingerprint of a run: all settings and versions that change embeddings.

An output holds records of one fingerprint only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from dataclasses import dataclass
from typing import Any

from cxr_embed import storage
from cxr_embed.elements import CONFIG_NAME
from cxr_embed.errors import MachineFault, UsageError, cannot_be_read
from cxr_embed.imaging.decoders import ABSENT, decoder_versions
from cxr_embed.models import package_of
from cxr_embed.models.fit import PREPROCESSING_VERSION

Fingerprint = dict[str, Any]

# TensorFlow is published under several names; all of them are imported as `tensorflow`.
_DISTRIBUTIONS = {
    "tensorflow": (
        "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel", "tensorflow-gpu",
        "tensorflow-macos", "tensorflow-rocm", "tensorflow-aarch64", "tf-nightly",
    ),
    "openvino": ("openvino", "openvino-nightly"),
    "onnxruntime": (
        "onnxruntime", "onnxruntime-gpu", "ort-nightly", "ort-nightly-gpu", "onnxruntime-openvino",
        "onnxruntime-directml",
    ),
}  # fmt: skip

# Where the model came from. Whether it is the same one, `model_sha256` says: another commit of a
# repository may hold the same model.
_ORIGIN = {"model_revision"}


def make_fingerprint(
    *,
    model_sha256: str,
    model_config: dict[str, Any] | None,
    rendering: str,
    precision: str,
    engine: str,
    model_revision: str = "",
    decode_scale: str = "full",
) -> Fingerprint:
    """Returns the fingerprint of a run, ready for JSON.

    Args:
        model_sha256: hash of the model's content, or the name of a hosted model.
        model_config: the parsed model config, or None if everything was inferred.
        rendering: `cxr_foundation` or `dicom`.
        precision: `float32` or `bfloat16`; `hosted` for an endpoint.
        engine: a key of `models.loading.ENGINES`, or another package's engine.
        model_revision: the commit of a model on the Hugging Face Hub.
        decode_scale: `full`; or `auto`, where images may be decoded at a lower resolution.
    """
    return {
        "model_sha256": model_sha256,
        **({"model_revision": model_revision} if model_revision else {}),
        "model_config": model_config,
        "rendering": rendering,
        **({"decode_scale": decode_scale} if decode_scale != "full" else {}),
        "precision": precision,
        "engine": engine,
        **_software(engine),
    }


def _software(engine: str) -> Fingerprint:
    """Returns the part of a fingerprint that depends on the installed packages."""
    return {
        "preprocessing_version": PREPROCESSING_VERSION,
        "resize": f"opencv {importlib.metadata.version('opencv-python-headless')}",
        "engine_version": "hosted" if engine == "vertex" else package_version(package_of(engine)),
        "decoders": decoder_versions(),
    }


def package_version(name: str) -> str:
    """Returns the version of a package, which may be published under several names.

    Args:
        name: the import name.

    Returns:
        The version; `ABSENT` if the package is not installed.
    """
    for distribution in _DISTRIBUTIONS.get(name, (name,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, AttributeError):
        return ABSENT


def require_same_software(expected: Fingerprint) -> None:
    """Stops a worker whose packages would give other embeddings than the launcher's.

    A decoder that is installed on only one of the two is a difference: either the output would not
    record which decoder read an image, or the image would fail on some workers only.

    Raises:
        MachineFault: the packages differ. The message names the keys.
    """
    here = expected | _software(expected["engine"])
    changed = differences(expected, here, absent_matters=True)
    if changed:
        raise MachineFault(
            f"this worker has other software than the launcher ({', '.join(changed)}): install "
            "the same versions on both, or start the job from the workers' image"
        )


def differences(old: Fingerprint, new: Fingerprint, *, absent_matters: bool = False) -> list[str]:
    """Returns the keys in which two fingerprints differ; nested keys as `decoders.pillow`.

    Args:
        old: a fingerprint.
        new: the other fingerprint.
        absent_matters: whether a package that is absent from one of them is a difference. Between
            two runs it changes no embedding, since images without a decoder fail.
    """
    found = []
    for key in sorted({*old, *new} - _ORIGIN):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            inside = differences(before, after, absent_matters=absent_matters)
            found += [f"{key}.{inner}" for inner in inside]
        elif before != after and (absent_matters or ABSENT not in (before, after)):
            found.append(key)
    return found


def merged(old: Fingerprint, new: Fingerprint) -> Fingerprint:
    """Merges the fingerprints of an output and of a run that differ only in absent packages.

    Packages that were absent and are present now are added. Packages that are absent now keep
    their old version.
    """
    result = dict(old)
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            result[key] = merged(before, value)
        elif value != ABSENT or key not in old:
            result[key] = value
    return result


@dataclass(frozen=True)
class OutputConfig:
    """The content of an output's `_embedding_config.json`.

    Attributes:
        fingerprint: fingerprint of the output's records.
        embedding_size: number of floats in each record.
    """

    fingerprint: Fingerprint
    embedding_size: int


def read_output_config(output_path: str) -> OutputConfig | None:
    """Reads an output's `_embedding_config.json`.

    Returns:
        None if there is none, or `output_path` is a file itself.

    Raises:
        UsageError: the file exists and cannot be read or parsed.
    """
    path = storage.join(output_path, CONFIG_NAME)
    try:
        found = json.loads(storage.read_bytes(path))
        return OutputConfig(found, int(found.pop("embedding_size")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{path} is damaged, so it is unknown how the records beside it were made: "
            "pass --overwrite to compute them again, or another --output_path"
        ) from error


def write_output_config(output_path: str, config: OutputConfig) -> None:
    """Writes `_embedding_config.json` at the output's root."""
    content = {**config.fingerprint, "embedding_size": config.embedding_size}
    data = json.dumps(content, indent=2, sort_keys=True) + "\n"
    storage.write_whole(storage.join(output_path, CONFIG_NAME), data.encode(), replace=True)
