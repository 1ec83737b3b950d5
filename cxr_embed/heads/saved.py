"""A head on disk: a Keras model, and beside it the metadata that its use needs.

| file | content |
| --- | --- |
| `model.keras` | embeddings, float32 (n, d), in; probabilities, (n, heads), out |
| `head.json` | names of the heads, size and fingerprint of the embeddings, how it was trained, \
calibration, thresholds |

`head.json` is written last and removed first, so that a folder which has it is whole.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cxr_embed import storage
from cxr_embed.errors import UsageError, cannot_be_written, one_line
from cxr_embed.runs.fingerprint import Fingerprint, differences

MODEL_NAME = "model.keras"
HEAD_NAME = "head.json"
METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.csv"

_FORMAT = 1


@dataclass(frozen=True)
class SavedHead:
    """The content of `head.json`.

    Attributes:
        heads: names of the model's outputs, in order.
        embedding_size: floats in an embedding.
        embedding_fingerprint: how the embeddings that it was trained on were made, if known.
        training: how it was trained, for documentation only.
        command: the command line that made it.
        calibration: for each head `slope` and `offset`, which the model's logits include; empty
            without calibration.
        thresholds: for each head the table of `operating_points.tabulate`, from the tune split;
            empty in heads of earlier versions.
    """

    heads: tuple[str, ...]
    embedding_size: int
    embedding_fingerprint: Fingerprint | None
    training: dict[str, Any]
    command: str
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    thresholds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Returns the file's content."""
        content = {
            "format": _FORMAT,
            "heads": list(self.heads),
            "embedding_size": self.embedding_size,
            "embedding_fingerprint": self.embedding_fingerprint,
            "training": self.training,
            "command": self.command,
            "calibration": self.calibration,
            "thresholds": self.thresholds,
        }
        return to_json(content)


def to_json(content: Any) -> bytes:
    """Returns JSON that ends in a new line; it has no NaN."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def require_free(folder: str, overwrite: bool, flag: str, markers: Sequence[str] = ()) -> None:
    """Refuses a folder that another run has written to, or that cannot be written to.

    Args:
        folder: local or in a bucket.
        overwrite: whether the user allows it.
        flag: the flag that gave the folder, for messages.
        markers: files that mark a finished output; they are removed, with `overwrite`.

    Raises:
        UsageError: it is not free, or not writable.
    """
    if why := storage.why_not_writable(folder):
        raise UsageError(f"{flag} {folder}: {why}")
    try:
        found = next(
            (e.path for e in storage.list_files(folder) if not storage.is_temporary(e.path)), None
        )
        if found is None:
            return
        if not overwrite:
            raise UsageError(
                f"{flag} {folder} is not empty (it holds {found}): pass --overwrite, or another "
                "folder"
            )
        for name in markers:
            storage.remove(storage.join(folder, name))
    except OSError as error:
        raise UsageError(f"{flag} {folder}: {error.strerror or error}") from error


def write_files(folder: str, files: Mapping[str, bytes]) -> None:
    """Writes files in their order, each whole or not at all.

    Raises:
        UsageError: one cannot be written.
    """
    for name, data in files.items():
        path = storage.join(folder, name)
        try:
            storage.write_whole(path, data, replace=True)
        except OSError as error:
            raise cannot_be_written(path, error) from error


def model_bytes(model: Any) -> bytes:
    """Returns a Keras model as the bytes of a `.keras` file."""
    with tempfile.TemporaryDirectory(prefix="cxr-embed-head-") as scratch:
        path = Path(scratch) / MODEL_NAME
        model.save(path)
        return path.read_bytes()


def read_head(folder: str) -> SavedHead:
    """Reads `head.json`.

    Raises:
        UsageError: it is not there, or damaged.
    """
    path = storage.join(folder, HEAD_NAME)
    try:
        content = json.loads(storage.read_bytes(path))
        if content["format"] != _FORMAT:
            raise UsageError(
                f"{path} is of format {content['format']}, this program reads {_FORMAT}"
            )
        return SavedHead(
            tuple(content["heads"]), int(content["embedding_size"]),
            content["embedding_fingerprint"], content["training"], content["command"],
            content.get("calibration", {}), content.get("thresholds", {}),
        )  # fmt: skip
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{folder} holds no trained head: {HEAD_NAME} is missing; name the --output_dir of a "
            "training run"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error


def load_model(folder: str, head: SavedHead) -> Any:
    """Loads `model.keras` and checks it against `head.json`.

    Raises:
        UsageError: it is missing, damaged, or another model than `head.json` is of.
    """
    from cxr_embed.heads.network import import_keras

    path = storage.join(folder, MODEL_NAME)
    keras = import_keras()
    try:
        data = storage.read_bytes(path)
        with tempfile.TemporaryDirectory(prefix="cxr-embed-head-") as scratch:
            local = Path(scratch) / MODEL_NAME
            local.write_bytes(data)
            model = keras.models.load_model(local, compile=False)
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing") from error
    except Exception as error:  # whatever Keras, h5py or zipfile raise on a damaged file
        raise UsageError(f"{path} cannot be loaded: {one_line(error)}") from error
    if model.input_shape[-1] != head.embedding_size or model.output_shape[-1] != len(head.heads):
        raise UsageError(
            f"{path} takes {model.input_shape[-1]} floats and gives {model.output_shape[-1]}, "
            f"{HEAD_NAME} gives {head.embedding_size} and {len(head.heads)}"
        )
    return model


def check_embeddings(
    head: SavedHead, size: int, fingerprint: Fingerprint | None, source: str, allow_others: bool
) -> str | None:
    """Checks that a head fits embeddings.

    Args:
        head: the head.
        size: floats in one of the embeddings.
        fingerprint: how they were made, if known.
        source: where they are from.
        allow_others: accept embeddings that were made with other settings.

    Returns:
        A warning, or None where head and embeddings are known to fit.

    Raises:
        UsageError: they do not fit.
    """
    if size != head.embedding_size:
        raise UsageError(
            f"{source} holds embeddings of {size} floats; this head takes {head.embedding_size}"
        )
    if fingerprint is None or head.embedding_fingerprint is None:
        which = source if fingerprint is None else "the head"
        return f"warning: {which} does not record how the embeddings were made: they may not fit"
    changed = differences(head.embedding_fingerprint, fingerprint)
    if not changed:
        return None
    line = (
        f"{source} was made with other settings than the embeddings that the head was trained on "
        f"({', '.join(changed)})"
    )
    if not allow_others:
        raise UsageError(f"{line}: pass --allow_other_embeddings if you know that they fit")
    return f"warning: {line}"


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Returns a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def label_column(head: str) -> str:
    """Returns the column of predictions.csv that holds a head's labels."""
    return f"{head}_label"


def probability_column(head: str) -> str:
    """Returns the column of predictions.csv that holds a head's probabilities."""
    return f"{head}_probability"


def class_column(head: str) -> str:
    """Returns the column of predictions.csv that holds a head's classes."""
    return f"{head}_class"


def probability_text(value: float) -> str:
    """Returns a float32 in full, so that what is read back is the same number."""
    return repr(float(np.float32(value)))
