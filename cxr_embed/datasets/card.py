"""Writes the dataset card: a README.md with the front matter that Hugging Face reads.

Its facts about model, rendering and counts are from the run manifests of the records.
Format: https://huggingface.co/docs/hub/datasets-cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

_SIZES = ((1_000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M"))


@dataclass(frozen=True)
class Packed:
    """The facts about a packed data set.

    Attributes:
        format: `parquet`, `npz` or `tfrecord`.
        dtype: dtype of the embeddings.
        normalised: whether embeddings are scaled to length 1.
        rows: number of embeddings.
        embedding_size: floats in each embedding.
        shards: number of files with embeddings.
        bytes_on_disk: size of these files.
        fingerprint: fingerprint of the records; None if unknown.
        manifests: manifests of the records' runs, in order.
    """

    format: str
    dtype: str
    normalised: bool
    rows: int
    embedding_size: int
    shards: int
    bytes_on_disk: int
    fingerprint: dict[str, Any] | None
    manifests: Sequence[dict[str, Any]]


def dataset_card(packed: Packed) -> str:
    """Returns the text of the README.md."""
    return "\n".join([*_front_matter(packed), "", *_body(packed)]) + "\n"


def _front_matter(packed: Packed) -> list[str]:
    lines = [
        "---",
        "pretty_name: Chest radiograph embeddings",
        "# license: yours to choose; embeddings inherit the terms of the images they came from",
        "tags:", "- medical", "- radiology", "- chest-x-ray", "- embeddings",
        "task_categories:", "- image-feature-extraction",
        "size_categories:", f"- {_size_category(packed.rows)}",
    ]  # fmt: skip
    if packed.format == "parquet":
        lines += [
            "configs:", "- config_name: default", "  data_files:", "  - split: train",
            '    path: "data/embeddings-*.parquet"', "dataset_info:", "  features:",
        ]  # fmt: skip
        for name, kind in (("dicom_id", "string"), ("image_id", "string"),
                           ("subject_id", "int64"), ("study_id", "int64")):  # fmt: skip
            lines += [f"  - name: {name}", f"    dtype: {kind}"]
        lines += [
            "  - name: embedding", f"    list: {packed.dtype}",
            f"    length: {packed.embedding_size}", "  splits:", "  - name: train",
            f"    num_examples: {packed.rows}", f"  download_size: {packed.bytes_on_disk}",
        ]  # fmt: skip
    return [*lines, "---"]


def _size_category(rows: int) -> str:
    lower = ""
    for limit, name in _SIZES:
        if rows < limit:
            return f"{lower}<n<{name}" if lower else f"n<{name}"
        lower = name
    return f"n>{lower}"


def _body(packed: Packed) -> list[str]:
    scaled = ", scaled to length 1 (L2)" if packed.normalised else ""
    return [
        "# Chest radiograph embeddings",
        "",
        f"{packed.rows:,} embeddings of {packed.embedding_size:,} floats ({packed.dtype}{scaled}), "
        f"one an image, in {packed.shards} {packed.format} file{'s' * (packed.shards != 1)}.",
        "",
        *_columns(packed.format),
        "",
        "`SHA256SUMS.txt` holds the digest of every file: `sha256sum -c SHA256SUMS.txt`.",
        "",
        "## How they were made",
        "",
        *_origin(packed),
        "",
        "## Use",
        "",
        "Research only, not a medical device. The embeddings inherit the terms of the images they",
        "were computed from; the licence is the owner's to fill in, in the head of this file.",
        "",
        "## Citations",
        "",
        "Of the published data set and its method, and of MIMIC-CXR and PhysioNet where the images",
        "are from there:",
        "",
        *(files("cxr_embed.datasets") / "citations.md").read_text("utf-8").splitlines(),
    ]


def _columns(format_: str) -> list[str]:
    if format_ == "tfrecord":
        return [
            "Each record is a `tf.train.Example` with `image/id` (path or URI of the image) and",
            "`embedding`.",
        ]
    absent = "-1" if format_ == "npz" else "empty"
    return [
        "| column | content |",
        "| --- | --- |",
        "| `dicom_id` | the image's file name without its extension |",
        "| `image_id` | its path or URI, as it was given |",
        f"| `subject_id`, `study_id` | from paths in the layout of MIMIC-CXR, else {absent} |",
        "| `embedding` | the floats |",
    ]


def _origin(packed: Packed) -> list[str]:
    if packed.fingerprint is None:
        return ["It is unknown how these embeddings were made."]
    rows = {
        "model": _model_name(packed.manifests),
        "model, SHA-256": packed.fingerprint.get("model_sha256"),
        "rendering": packed.fingerprint.get("rendering"),
        "preprocessing version": packed.fingerprint.get("preprocessing_version"),
        "precision": packed.fingerprint.get("precision"),
        "engine": f"{packed.fingerprint.get('engine')} {packed.fingerprint.get('engine_version')}",
        "resize": packed.fingerprint.get("resize"),
        "decoders": ", ".join(
            f"{name} {version}" for name, version in packed.fingerprint.get("decoders", {}).items()
        ),
        **_counts(packed.manifests),
    }
    table = [f"| {name} | {value} |" for name, value in rows.items() if value not in (None, "")]
    return ["| | |", "| --- | --- |", *table]


def _model_name(manifests: Sequence[dict[str, Any]]) -> str:
    # Only the name, since the rest of the path may be private.
    paths = [str(manifest.get("model_path") or "") for manifest in manifests]
    names = dict.fromkeys(PurePosixPath(path).name for path in paths if path)
    return ", ".join(f"`{name}`" for name in names)


def _counts(manifests: Sequence[dict[str, Any]]) -> dict[str, str]:
    if not manifests:
        return {}
    last = manifests[-1]
    counts = last.get("counts", {})
    rows = {
        "runs": f"{len(manifests)}, {manifests[0].get('started')} to {last.get('finished')}",
        "images found": str(counts.get("found", "")),
    }
    for outcome in ("skipped", "failed"):
        reasons = counts.get(outcome) or {}
        rows[outcome] = ", ".join(f"{number} {code}" for code, number in reasons.items()) or "0"
    rows["versions"] = ", ".join(f"{k} {v}" for k, v in last.get("versions", {}).items())
    return rows
