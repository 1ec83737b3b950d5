"""Resolves the query of a search: an image of the output, a record, or an image file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_embed import models, storage
from cxr_embed.elements import CONFIG_NAME, RECORD_SUFFIX
from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.errors import ImageRejected, UsageError, cannot_be_read
from cxr_embed.imaging.image_files import read_image
from cxr_embed.models import fetch
from cxr_embed.models.config import ModelConfig
from cxr_embed.models.sharing import shared
from cxr_embed.records import BadRecord, decode_record
from cxr_embed.runs.fingerprint import (
    OutputConfig,
    differences,
    make_fingerprint,
    read_output_config,
)
from cxr_embed.runs.history import read_runs

Log = Callable[[str], None]


@dataclass(frozen=True)
class Query:
    """A resolved query.

    Attributes:
        words: type of the query, for messages.
        embedding: float32 of shape (d,).
        path: path of the image.
        row: the query's own row among the embeddings, or -1.
    """

    words: str
    embedding: np.ndarray
    path: str
    row: int = -1


def resolve(
    query: str,
    embeddings: Embeddings,
    output_path: str,
    *,
    model_path: str | None = None,
    device: str = "auto",
    log: Log = lambda line: None,
) -> Query:
    """Resolves a query in this order: dicom id or path of an embedding, record file, image file.

    An image file is embedded with the settings of the output.

    Args:
        query: the query from the user.
        embeddings: the searched embeddings.
        output_path: the output of the embeddings.
        model_path: the model's current folder; by default the one in the manifests.
        device: the device for the model.
        log: logs one line for the user.

    Raises:
        UsageError: the query is none of these, or the image cannot be embedded with the settings of
            the output.
    """
    if (row := _row_of(query, embeddings)) is not None:
        return Query("an image of this output", embeddings.values[row],
                     embeddings.image_ids[row], row)  # fmt: skip
    if query.endswith(RECORD_SUFFIX):
        found = _read_record(query, output_path)
    elif _is_there(query):
        embedding = _embed(query, output_path, model_path, device, log)
        found = Query("an image file, embedded now", embedding, query)
    else:
        hint = _hint(query, embeddings)
        raise UsageError(f"--query {query}: neither an id in {output_path} nor a file{hint}")
    if found.embedding.shape != embeddings.values.shape[1:]:
        raise UsageError(
            f"--query {query} has {found.embedding.size} floats, the embeddings in {output_path} "
            f"have {embeddings.values.shape[1]}: they were made by different models"
        )
    # A record of the output, or a copy of it, must not be its own neighbour.
    rows = [row for row, path in enumerate(embeddings.image_ids) if path == found.path]
    return Query(found.words, found.embedding, found.path, rows[0] if len(rows) == 1 else -1)


def _row_of(query: str, embeddings: Embeddings) -> int | None:
    for names in (embeddings.ids, embeddings.image_ids):
        rows = [row for row, name in enumerate(names) if name == query]
        if len(rows) > 1:
            raise UsageError(
                f"--query {query} names {len(rows)} images: pass the path of one of them, such as "
                f"{embeddings.image_ids[rows[0]]}"
            )
        if rows:
            return rows[0]
    return None


def _hint(query: str, embeddings: Embeddings) -> str:
    near = difflib.get_close_matches(query, embeddings.ids, 1) if len(embeddings) < 100_000 else []
    return f"; did you mean {near[0]}?" if near else f"; an id is, for example, {embeddings.ids[0]}"


def _is_there(path: str) -> bool:
    try:
        return Path(path).is_file() if storage.is_on_disk(path) else storage.exists(path)
    except (OSError, ValueError):
        return False


def _read_record(path: str, output_path: str) -> Query:
    try:
        record = decode_record(storage.read_bytes(path))
    except BadRecord as error:
        raise UsageError(f"--query {path} is damaged: {error}") from error
    except OSError as error:
        raise cannot_be_read(f"--query {path}", error) from error
    theirs, ours = _config_above(path), read_output_config(output_path)
    if theirs and ours and (changed := differences(theirs.fingerprint, ours.fingerprint)):
        raise UsageError(
            f"--query {path} was made with other settings than {output_path} "
            f"({', '.join(changed)}), so that their embeddings cannot be compared"
        )
    return Query("a record", record.embedding, record.image_id)


def _config_above(path: str) -> OutputConfig | None:
    """Returns the config of a record's output, which may be in any parent folder."""
    if not storage.is_on_disk(path):
        return read_output_config(path.rpartition("/")[0])
    for folder in Path(path).absolute().parents:
        if (folder / CONFIG_NAME).is_file():
            return read_output_config(str(folder))
    return None


def _embed(
    path: str, output_path: str, model_path: str | None, device: str, log: Log
) -> np.ndarray:
    """Embeds one image with the settings of the output."""
    config = read_output_config(output_path)
    if config is None:
        raise UsageError(
            f"{output_path} has no {CONFIG_NAME}, so it is unknown how to embed {path}: search for "
            "an id or a record"
        )
    try:
        radiograph = read_image(storage.read_bytes(path), rendering=config.fingerprint["rendering"])
    except ImageRejected as rejected:
        raise UsageError(f"--query {path} cannot be embedded: {rejected}") from rejected
    except OSError as error:
        raise cannot_be_read(f"--query {path}", error) from error
    except (KeyError, ValueError) as error:
        raise UsageError(f"{output_path}: {CONFIG_NAME} is of another version") from error
    settings = same_model(output_path, config, model_path, device)
    log(f"embedding {path} with {settings.path}")
    model = shared(settings)
    fitted = model.fit(radiograph)
    embedding = fitted if isinstance(fitted, ImageRejected) else model.embed_each([fitted])[0]
    if isinstance(embedding, ImageRejected):
        raise UsageError(f"--query {path} cannot be embedded: {embedding}") from embedding
    return np.asarray(embedding, np.float32)


def same_model(
    output_path: str, config: OutputConfig, model_path: str | None, device: str
) -> models.ModelSettings:
    """Returns the settings of the model of an output, after comparing the fingerprints.

    Args:
        output_path: the output.
        config: the output's config.
        model_path: the model's current folder; None is the one in the manifests.
        device: the device for the model.

    Raises:
        UsageError: the model is missing or hosted, or the fingerprint has changed.
    """
    made = config.fingerprint
    if made.get("engine") == "vertex":
        raise UsageError(
            f"{output_path} was made by a hosted endpoint, and a search sends no images: embed the "
            "image with the main job and search for its record"
        )
    where = model_path or _recorded_model(output_path, made.get("model_sha256"))
    fetch.check_address(where)
    is_remote = fetch.is_remote(where)
    if not is_remote and not Path(where).exists():
        raise UsageError(
            f"the model of {output_path} is no longer at {where}: pass --model_path"
            if model_path is None
            else f"--model_path {where} does not exist"
        )
    try:
        settings = models.ModelSettings(
            where,
            ModelConfig.from_dict(made.get("model_config")),
            device=device,
            engine=made["engine"],
            precision=made["precision"],
            revision=fetch.revision_of(where) if is_remote else "",
        )
        models.check_is_there(settings)
        now = make_fingerprint(
            model_sha256=models.content_id(settings),
            model_config=settings.config.as_dict(),
            rendering=made["rendering"],
            precision=models.precision_of(settings),
            engine=settings.engine,
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"{output_path}: {CONFIG_NAME} is of another version") from error
    if changed := differences(made, json.loads(json.dumps(now))):
        remedy = "; pass the original model as --model_path" if "model_sha256" in changed else ""
        raise UsageError(
            f"an image embedded now cannot be compared with those in {output_path}: "
            f"{', '.join(changed)} changed since{remedy}"
        )
    return settings


def _recorded_model(output_path: str, model_sha256: object) -> str:
    for run in reversed(read_runs(output_path)):
        path = run.manifest.get("model_path")
        if path and run.fingerprint.get("model_sha256") == model_sha256:
            return fetch.pinned(path, run.manifest.get("model_revision", ""))
    raise UsageError(f"no manifest of {output_path} has the path of its model: pass --model_path")
