"""Exports the reference network as a SavedModel or ONNX graph that runs without this package."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_embed.efficientnet.architecture import (
    ARCHITECTURES,
    EMBEDDING_KERNEL,
    Architecture,
    folded_parameter_count,
)
from cxr_embed.efficientnet.onnx_file import GRAPH_FILE, write_onnx
from cxr_embed.efficientnet.weights import Weights, orthogonal_projection, random_weights
from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.kinds import DESCRIPTION_FILE
from cxr_embed.models.onnx.graph_file import import_onnx
from cxr_embed.models.tensorflow.runtime import import_tensorflow

RANDOM = "random"
SAVED_MODEL, ONNX = FORMATS = ("saved_model", "onnx")

# The network has five strides of two: below 32 pixels the head would see only padding.
_SMALLEST_IMAGE = 32
_LARGEST_IMAGE = 4096
_LARGEST_EMBEDDING = 65_536
# Graph, index and description beside the weights.
_DISK_HEADROOM = 64 * 2**20
_NO_MEANING = (
    "The weights are random: this model is not trained, and its embeddings carry no clinical "
    "meaning."
)


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: The model's folder.
        architecture: Name of the network.
        image_size: Side of its square input in pixels.
        embedding_size: Floats in an embedding.
        parameters: Stored parameters after folding batch norm.
        bytes_on_disk: Size of the folder.
        trained: False for random weights.
        seconds: Duration of the export.
    """

    path: Path
    architecture: str
    image_size: int
    embedding_size: int
    parameters: int
    bytes_on_disk: int
    trained: bool
    seconds: float


def export_model(
    output_dir: str | os.PathLike[str],
    *,
    architecture: str = "efficientnet-l2",
    image_size: int = 0,
    embedding_size: int = 4096,
    weights: str | os.PathLike[str] = RANDOM,
    seed: int = 0,
    overwrite: bool = False,
    format: str = SAVED_MODEL,
) -> ExportReport:
    """Exports an EfficientNet that embeds radiographs as a SavedModel or as an ONNX graph.

    A SavedModel's signatures accept any batch size. With H = W = `image_size` and N = the embedding
    size:

    - `serving_default`: `image` float32 [?, H, W, 3], pixels in 0..1 → `embedding` float32 [?, N];
    - `serialized_example`: `input_example` string [?], each a `tf.Example` whose `image/encoded`
      is a grey PNG of 8 or 16 bits and any size → `embedding`. The PNG is scaled by the full range
      of its dtype and resized to H x W (bilinear, antialiased, without keeping its aspect ratio).

    An ONNX graph is `model.onnx` and `model.onnx.data` in the folder. It has the input `image` and
    the output `embedding` of `serving_default`.

    The folder appears atomically. The same arguments give bit-identical variables on the same type
    of processor. `saved_model.pb` may differ in the numbers of its functions, and `fingerprint.pb`
    contains a random id.

    Args:
        output_dir: the folder to write; must not exist without `overwrite`.
        architecture: a key of `ARCHITECTURES`.
        image_size: side of the input in pixels; 0 is the architecture's default.
        embedding_size: floats in an embedding. The pooled features are projected with the weights'
            own projection, or with a seeded orthogonal one; 0 returns the pooled features.
        weights: `random`, or a file of trained weights; see `checkpoints.read_weights`.
        seed: seed of random weights and of the projection.
        overwrite: replace an existing model. A folder that is not a model is never replaced.
        format: one of `FORMATS`.

    Returns:
        The result of the export.

    Raises:
        UsageError: an argument is out of range, the weights do not match, the folder exists or
            cannot be written, or the disk is too full.
    """
    started = time.monotonic()
    network = _check_arguments(architecture, image_size, embedding_size, format)
    image_size = image_size or network.image_size
    output = Path(output_dir)
    _check_output(output, overwrite=overwrite)

    parameters = folded_parameter_count(network, embedding_size)
    with _whole_or_nothing(output, parameters, overwrite=overwrite) as folder:
        source = _read_weights(network, image_size, os.fspath(weights), seed)
        _fit_projection(source, embedding_size, seed)
        description = _describe(source, image_size, embedding_size, seed)
        if format == ONNX:
            write_onnx(folder, source.architecture, source.arrays, image_size, description)
        else:
            _save(source, image_size, folder)
        text = json.dumps(description, indent=2) + "\n"
        (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")

    return ExportReport(
        path=output,
        architecture=architecture,
        image_size=image_size,
        embedding_size=embedding_size or network.features,
        parameters=parameters,
        bytes_on_disk=sum(file.stat().st_size for file in output.rglob("*") if file.is_file()),
        trained=source.trained,
        seconds=time.monotonic() - started,
    )


def _describe(source: Weights, image_size: int, embedding_size: int, seed: int) -> dict[str, Any]:
    network = source.architecture
    return {
        "architecture": network.name,
        "image_size": image_size,
        "embedding_size": embedding_size or network.features,
        "weights": source.source,
        "trained": source.trained,
        "seed": seed,
        "normalisation": {"mean": network.normalisation.mean, "std": network.normalisation.std},
        "note": "" if source.trained else _NO_MEANING,
        "cxr_embed_version": _own_version(),
    }


def _check_arguments(
    architecture: str, image_size: int, embedding_size: int, format: str
) -> Architecture:
    if format not in FORMATS:
        raise UsageError(f"--format {format} is not known: pass one of {', '.join(FORMATS)}")
    if format == ONNX:
        import_onnx()
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"--architecture {architecture} is not known: pass one of {known}")
    if image_size and not _SMALLEST_IMAGE <= image_size <= _LARGEST_IMAGE:
        raise UsageError(
            f"--image_size {image_size} is out of range: pass {_SMALLEST_IMAGE} to "
            f"{_LARGEST_IMAGE} pixels, or 0 for the architecture's default"
        )
    if not 0 <= embedding_size <= _LARGEST_EMBEDDING:
        raise UsageError(
            f"--embedding_size {embedding_size} is out of range: pass 1 to {_LARGEST_EMBEDDING}, "
            "or 0 for the pooled features"
        )
    return ARCHITECTURES[architecture]


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.suffix == ".onnx" and not output.is_dir():
        raise UsageError(f"--output {output}: pass a folder; it will hold {GRAPH_FILE}")
    if str(output).startswith("gs:/"):
        raise UsageError(f"--output {output}: export to a local folder, then copy it to the bucket")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UsageError(f"--output {output} exists: pass another folder, or --overwrite")
    # A mistyped path must not delete a folder that is not a model.
    is_model = any((output / name).is_file() for name in ("saved_model.pb", GRAPH_FILE))
    if not output.is_dir() or not (is_model or not any(output.iterdir())):
        raise UsageError(
            f"--output {output} exists and is not a model, so it is not overwritten: "
            "pass another folder"
        )


@contextlib.contextmanager
def _whole_or_nothing(output: Path, parameters: int, *, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `output`, or removed on an error."""
    partial = output.absolute().with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.partial")
    made = [folder for folder in partial.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True)
        needed = 4 * parameters + _DISK_HEADROOM
        free = shutil.disk_usage(partial).free
        if free < needed:
            raise UsageError(
                f"--output {output}: the model needs {needed / 1e9:.1f} GB and the disk has "
                f"{free / 1e9:.1f} GB left; free some, or pass a folder on another disk"
            )
        yield partial
        # Checked again, since another export may have finished first.
        _check_output(output, overwrite=overwrite)
        _take_place(partial, output)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise UsageError(f"--output {output} cannot be written: {one_line(error)}") from error
        raise


def _take_place(partial: Path, output: Path) -> None:
    if not os.path.lexists(output):
        partial.rename(output)
        return
    # A rename cannot replace a non-empty folder: rename the old one, and remove it afterwards.
    old = partial.with_suffix(".old")
    output.rename(old)
    try:
        partial.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_weights(network: Architecture, image_size: int, weights: str, seed: int) -> Weights:
    if weights == RANDOM:
        with import_tensorflow().device("/CPU:0"):
            return random_weights(network, image_size=image_size, seed=seed)
    from cxr_embed.efficientnet.checkpoints import read_weights

    return read_weights(Path(weights), network)


def _fit_projection(source: Weights, size: int, seed: int) -> None:
    """Removes the projection, keeps that of the weights, or creates one."""
    own = source.arrays.pop(EMBEDDING_KERNEL, None)
    if own is not None and size not in (0, own.shape[1]):
        raise UsageError(
            f"--embedding_size {size}: the projection in {source.source} gives {own.shape[1]} "
            f"floats: pass --embedding_size {own.shape[1]}, or 0 for the pooled features"
        )
    if size:
        features = source.architecture.features
        made = own if own is not None else orthogonal_projection(features, size, seed=seed)
        source.arrays[EMBEDDING_KERNEL] = made


def _save(source: Weights, image_size: int, folder: Path) -> None:
    """Saves a network as a SavedModel, which consumes its arrays."""
    tf = import_tensorflow()
    from cxr_embed.efficientnet.servable import EmbeddingModule

    # Calls of the exported graph are not in this scope, so that it can run on any device.
    with tf.device("/CPU:0"):
        module = EmbeddingModule(source.architecture, source.arrays, image_size)
    signatures = {
        "serving_default": module.embed_images,
        "serialized_example": module.embed_examples,
    }
    # The exported graph is for inference only.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, os.fspath(folder), signatures=signatures, options=options)
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def _own_version() -> str | None:
    try:
        return importlib.metadata.version("cxr-embed")
    except importlib.metadata.PackageNotFoundError:
        return None
