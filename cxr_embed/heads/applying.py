"""A trained head applied to embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import network, saved
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.predictions import Predictions


def apply(
    folder: str,
    head: saved.SavedHead,
    embeddings: MappedEmbeddings,
    *,
    allow_others: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """Returns a head's probabilities for all embeddings, without labels.

    Args:
        folder: where the head is.
        head: the content of its `head.json`.
        embeddings: the embeddings.
        allow_others: accept embeddings that were made with other settings.
        log: receives one line of progress at a time.

    Raises:
        UsageError: head and embeddings do not fit, or an embedding holds NaN or infinity.
    """
    warning = saved.check_embeddings(
        head, embeddings.size, embeddings.fingerprint, embeddings.source, allow_others
    )
    if warning:
        log(warning)
    model = saved.load_model(folder, head)
    rows = np.arange(len(embeddings))
    probabilities = network.predictor(model, embeddings)(rows).astype(np.float64)
    embeddings.release()
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(bad):
        raise UsageError(
            f"{len(bad)} embeddings give no probability, such as that of "
            f"{embeddings.image_ids[bad[0]]}: they hold NaN or infinity"
        )
    return Predictions(
        head.heads, list(embeddings.ids), list(embeddings.image_ids), probabilities, None,
        np.full(len(rows), "", dtype=object), rows, sources=embeddings.sources_of(rows),
    )  # fmt: skip
