"""Writes the reference network as a SavedModel that needs nothing of this package to run."""

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
from cxr_embed.efficientnet.weights import Weights, orthogonal_projection, random_weights
from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.tensorflow.runtime import import_tensorflow

DESCRIPTION_FILE = "cxr_embed_model.json"
RANDOM = "random"

# Five strides of two: below 32 pixels nothing but padding would reach the head.
_SMALLEST_IMAGE = 32
_LARGEST_IMAGE = 4096
_LARGEST_EMBEDDING = 65_536
# Graph, index and description beside the weights.
_DISK_HEADROOM = 64 * 2**20
_NO_MEANING = (
    "The weights are random: nobody has trained this model, and its embeddings carry no clinical "
    "meaning."
)


@dataclass(frozen=True)
class ExportReport:
    """What an export has written.

    Attributes:
        path: The SavedModel's folder.
        architecture: Name of the network.
        image_size: Side of its square input in pixels.
        embedding_size: Floats an embedding has.
        parameters: Numbers stored, batch norm folded.
        bytes_on_disk: Size of the folder.
        trained: False for random weights.
        seconds: How long it took.
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
) -> ExportReport:
    """Writes an EfficientNet that embeds radiographs, as a SavedModel.

    Its signatures, H = W = `image_size`, N = the embedding's size, any batch:

    - `serving_default`: `image` float32 [?, H, W, 3], pixels in 0..1 → `embedding` float32 [?, N];
    - `serialized_example`: `input_example` string [?], each a `tf.Example` whose `image/encoded`
      is a grey PNG of 8 or 16 bits and any size → `embedding`. The PNG is scaled by its type's
      full range and resized to H x W (bilinear, antialiased, the aspect ratio not kept).

    The folder appears whole or not at all. The same arguments give the same variables, bit by bit,
    on the same kind of processor; `saved_model.pb` numbers its functions as the process happens to
    count, and `fingerprint.pb` holds a random id.

    Args:
        output_dir: the folder to write; must not exist, unless `overwrite`.
        architecture: a key of `ARCHITECTURES`.
        image_size: side of the input in pixels; 0 is the architecture's own.
        embedding_size: floats of an embedding, made from the pooled features by the projection
            that the weights bring, else by a seeded orthogonal one; 0 gives the pooled features
            themselves.
        weights: `random`, or a file of trained weights; see `checkpoints.read_weights`.
        seed: of random weights and of the projection.
        overwrite: replace a model that is there. Anything else than a model stays untouched.

    Returns:
        What was written, and where.

    Raises:
        UsageError: an argument is out of range, the weights do not fit, the folder exists or
            cannot be written, or the disk is too full.
    """
    started = time.monotonic()
    network = _check_arguments(architecture, image_size, embedding_size)
    image_size = image_size or network.image_size
    output = Path(output_dir)
    _check_output(output, overwrite=overwrite)

    parameters = folded_parameter_count(network, embedding_size)
    with _whole_or_nothing(output, parameters, overwrite=overwrite) as folder:
        module, source = _build(network, image_size, embedding_size, os.fspath(weights), seed)
        _save(module, folder)
        description = {
            "architecture": architecture,
            "image_size": image_size,
            "embedding_size": embedding_size or network.features,
            "weights": source.source,
            "trained": source.trained,
            "seed": seed,
            "normalisation": {
                "mean": source.architecture.normalisation.mean,
                "std": source.architecture.normalisation.std,
            },
            "note": "" if source.trained else _NO_MEANING,
            "cxr_embed_version": _own_version(),
        }
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


def _check_arguments(architecture: str, image_size: int, embedding_size: int) -> Architecture:
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"--architecture {architecture} is not known: pass one of {known}")
    if image_size and not _SMALLEST_IMAGE <= image_size <= _LARGEST_IMAGE:
        raise UsageError(
            f"--image_size {image_size} is out of range: pass {_SMALLEST_IMAGE} to "
            f"{_LARGEST_IMAGE} pixels, or 0 for the architecture's own"
        )
    if not 0 <= embedding_size <= _LARGEST_EMBEDDING:
        raise UsageError(
            f"--embedding_size {embedding_size} is out of range: pass 1 to {_LARGEST_EMBEDDING}, "
            "or 0 for the pooled features"
        )
    return ARCHITECTURES[architecture]


def _check_output(output: Path, *, overwrite: bool) -> None:
    if str(output).startswith("gs:/"):
        raise UsageError(f"--output {output}: export to a local folder, then copy it to the bucket")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UsageError(f"--output {output} exists: pass another folder, or --overwrite")
    # A mistyped path must not cost anybody a folder of something else.
    is_model = (output / "saved_model.pb").is_file()
    if not output.is_dir() or not (is_model or not any(output.iterdir())):
        raise UsageError(
            f"--output {output} exists and is not a model, so it is not overwritten: "
            "pass another folder"
        )


@contextlib.contextmanager
def _whole_or_nothing(output: Path, parameters: int, *, overwrite: bool) -> Iterator[Path]:
    """Gives a folder beside `output` that takes its place at the end, or vanishes on an error."""
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
        # Once more, since another export may have been quicker.
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
    # A folder that is not empty cannot be renamed over: move the old one aside, then drop it.
    old = partial.with_suffix(".old")
    output.rename(old)
    try:
        partial.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _build(
    network: Architecture, image_size: int, embedding_size: int, weights: str, seed: int
) -> tuple[Any, Weights]:
    """Returns the module to save and the record of its weights, whose arrays are used up."""
    tf = import_tensorflow()
    # The graph is traced outside of this scope, so that it stays free to run on any device.
    with tf.device("/CPU:0"):
        if weights == RANDOM:
            source = random_weights(network, image_size=image_size, seed=seed)
        else:
            from cxr_embed.efficientnet.checkpoints import read_weights

            source = read_weights(Path(weights), network)
        _fit_projection(source, embedding_size, seed)

        from cxr_embed.efficientnet.servable import EmbeddingModule

        return EmbeddingModule(source.architecture, source.arrays, image_size), source


def _fit_projection(source: Weights, size: int, seed: int) -> None:
    """Leaves the projection out, keeps the one that the weights bring, or makes one."""
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


def _save(module: Any, folder: Path) -> None:
    tf = import_tensorflow()
    signatures = {
        "serving_default": module.embed_images,
        "serialized_example": module.embed_examples,
    }
    # Nobody trains the exported graph.
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
