"""Labels and patients found in a table whose columns nobody named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxr_embed.embeddings.joining import GROUP_COLUMNS, IMAGE_COLUMNS
from cxr_embed.embeddings.mimic_paths import mimic_ids
from cxr_embed.heads.labels import PATIENT_COLUMNS, SPLIT_COLUMN

_BINARY = {"": np.nan, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "-1": np.nan, "-1.0": np.nan}
_NO_LABELS = {SPLIT_COLUMN, *PATIENT_COLUMNS, *GROUP_COLUMNS, *IMAGE_COLUMNS}
_MOST_VALUES = 12


def find_labels(columns: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Finds labels in the columns of a table.

    Args:
        columns: for each column its cells, as text.

    Returns:
        Each label by its name, float64 (n,): 0, 1, or NaN where the cell is blank or -1. A column
        of 0 and 1 is a label. A column of words, 12 different ones at most, is a label for each
        word, `column: word`, or only for the rarer of two. Other columns are none.
    """
    found: dict[str, np.ndarray] = {}
    for name, cells in columns.items():
        if name in _NO_LABELS:
            continue
        texts = [cell.strip() for cell in cells]
        values = set(texts) - {""}
        if values <= _BINARY.keys():
            label = np.array([_BINARY[text] for text in texts])
            if len(np.unique(label[~np.isnan(label)])) == 2:
                found[name] = label
        elif 2 <= len(values) <= _MOST_VALUES and not all(map(_is_number, values)):
            words = sorted(values, key=lambda word: (texts.count(word), word))
            if len(words) == 2:
                words = words[:1]
            for word in sorted(words):
                found[f"{name}: {word}"] = np.array(
                    [float(text == word) if text else np.nan for text in texts]
                )
    return found


def find_patients(
    columns: Mapping[str, Sequence[str]], image_ids: Sequence[str]
) -> tuple[np.ndarray, bool]:
    """Numbers patients: by a column of the table, or by MIMIC's folders.

    Args:
        columns: for each column its cells, as text.
        image_ids: paths or URIs of the images, in the same order.

    Returns:
        int64 of shape (n,), and whether they are known; an image without a patient is one of its
        own.
    """
    column = next((columns[name] for name in PATIENT_COLUMNS if name in columns), None)
    if column is None:
        found = [mimic_ids(image_id) for image_id in image_ids]
        column = ["" if ids is None else str(ids.subject_id) for ids in found]
    names = [cell.strip() or f"\0{row}" for row, cell in enumerate(column)]
    numbers = np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)
    return numbers, any(cell.strip() for cell in column)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
