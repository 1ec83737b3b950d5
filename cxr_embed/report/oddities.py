"""Finds images that may be wrong, by statistics of their pixels and by their embeddings.

The results are guesses. Pictures are compared with the median picture of the collection, so the
majority counts as correct.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

# Stable codes, which scripts may match, and their meanings.
ODDITIES = {
    "blank": "nearly all pixels have the same brightness",
    "inverted": "looks like the average picture only with black and white swapped",
    "rotated_90": "looks like the average picture once turned clockwise by 90 degrees",
    "rotated_180": "looks like the average picture once turned clockwise by 180 degrees",
    "rotated_270": "looks like the average picture once turned clockwise by 270 degrees",
    "far": "the embedding is far from those of all other images",
}

# With fewer pictures, the median picture depends too much on single images.
LEAST_PICTURES = 12

# With fewer embeddings, the usual distance to the neighbours cannot be estimated.
LEAST_EMBEDDINGS = 20

_EDGE = 32
_BLANK_SHARE = 0.92
_BLANK_SPREAD = 3
_ALIKE = 0.35
_MARGIN = 0.25
_FAR_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Likeness:
    """Correlations of a picture with the average picture.

    Attributes:
        upright: without rotation; negative if dark and bright are swapped.
        turned: after 1, 2 and 3 clockwise quarter turns.
    """

    upright: float
    turned: tuple[float, float, float]


def pixel_oddities(pictures: Mapping[int, np.ndarray]) -> dict[int, list[str]]:
    """Finds pictures that are blank, or look inverted or rotated compared with the others.

    Args:
        pictures: uint8 of shape (rows, columns), by any key.

    Returns:
        Keys of `ODDITIES` for each picture that has any.
    """
    found = {key: ["blank"] for key, picture in pictures.items() if is_blank(picture)}
    patterns = {key: _pattern(p) for key, p in pictures.items() if key not in found}
    if len(patterns) < LEAST_PICTURES:
        return found
    average = _standardised(np.median(np.stack(list(patterns.values())), axis=0))
    for key, pattern in patterns.items():
        code = _judge(likeness(pattern, average))
        if code:
            found[key] = [code]
    return found


def is_blank(picture: np.ndarray) -> bool:
    """Whether nearly all pixels of an 8-bit picture are near the most common grey level."""
    counts = np.bincount(picture.ravel(), minlength=256)
    mode = int(counts.argmax())
    near = counts[max(0, mode - _BLANK_SPREAD) : mode + _BLANK_SPREAD + 1].sum()
    return bool(near >= _BLANK_SHARE * picture.size)


def likeness(pattern: np.ndarray, average: np.ndarray) -> Likeness:
    """Correlates a square pattern with the average pattern, both with mean 0 and deviation 1."""
    upright, *turned = (float((np.rot90(pattern, -k) * average).mean()) for k in range(4))
    return Likeness(upright, (turned[0], turned[1], turned[2]))


def _judge(like: Likeness) -> str | None:
    best = max(like.turned)
    if best > _ALIKE and best > like.upright + _MARGIN:
        return f"rotated_{90 * (1 + like.turned.index(best))}"
    if -like.upright > _ALIKE and -like.upright > best:
        return "inverted"
    return None


def _pattern(picture: np.ndarray) -> np.ndarray:
    """Returns a picture's coarse pattern: float32 of shape (32, 32), mean 0, deviation 1."""
    small = cv2.resize(picture, (_EDGE, _EDGE), interpolation=cv2.INTER_AREA)
    return _standardised(small.astype(np.float32))


def _standardised(pattern: np.ndarray) -> np.ndarray:
    return cast(np.ndarray, (pattern - pattern.mean()) / max(float(pattern.std()), 1e-6))


def far_from_others(similarities: np.ndarray) -> np.ndarray:
    """Finds embeddings that are unusually far from their nearest neighbours.

    Args:
        similarities: float of shape (n,): mean cosine of each embedding to its neighbours.

    Returns:
        bool of shape (n,): whether it is over 4 robust standard deviations below the median.
    """
    if len(similarities) < LEAST_EMBEDDINGS:
        return np.zeros(len(similarities), bool)
    median = np.median(similarities)
    deviation = 1.4826 * np.median(np.abs(similarities - median))
    return cast(np.ndarray, similarities < median - _FAR_DEVIATIONS * max(deviation, 1e-6))
