"""Images that look wrong: by simple statistics of their pixels, and by their embeddings.

Nothing here is sure. Pixels are compared with the collection's own average picture, so what most
images look like counts as right, whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

# Stable codes: scripts may look for them. Words for people are beside them.
ODDITIES = {
    "blank": "nearly all pixels are of one brightness",
    "inverted": "looks like the average picture only with black and white swapped",
    "rotated_90": "looks like the average picture once turned clockwise by 90 degrees",
    "rotated_180": "looks like the average picture once turned clockwise by 180 degrees",
    "rotated_270": "looks like the average picture once turned clockwise by 270 degrees",
    "far": "its embedding is far from those of all other images",
}

# An average of fewer pictures is a picture of somebody.
LEAST_PICTURES = 12

# Fewer embeddings have no usual distance to their neighbours.
LEAST_EMBEDDINGS = 20

_EDGE = 32
_BLANK_SHARE = 0.92
_BLANK_SPREAD = 3
_ALIKE = 0.35
_MARGIN = 0.25
_FAR_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Likeness:
    """How much a picture is like the average one as it is, turned, and inverted: correlations.

    Attributes:
        upright: as it is; negative where dark and bright are swapped.
        turned: after (1, 2, 3) quarter turns clockwise.
    """

    upright: float
    turned: tuple[float, float, float]


def pixel_oddities(pictures: Mapping[int, np.ndarray]) -> dict[int, list[str]]:
    """Finds pictures that are blank, or look inverted or rotated beside the others.

    Args:
        pictures: uint8 of shape (rows, columns), by any number.

    Returns:
        Codes for those pictures that have any; keys of `ODDITIES`.
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
    """Whether nearly all pixels of an 8-bit picture are within a few levels of the commonest."""
    counts = np.bincount(picture.ravel(), minlength=256)
    mode = int(counts.argmax())
    near = counts[max(0, mode - _BLANK_SPREAD) : mode + _BLANK_SPREAD + 1].sum()
    return bool(near >= _BLANK_SHARE * picture.size)


def likeness(pattern: np.ndarray, average: np.ndarray) -> Likeness:
    """Correlates a square pattern with the average one, both of mean 0 and deviation 1."""
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
    """Tells which embeddings are unusually unlike even their nearest neighbours.

    Args:
        similarities: float of shape (n,): of each embedding the mean cosine to its nearest.

    Returns:
        bool of shape (n,): those more than 4 robust standard deviations below the median.
    """
    if len(similarities) < LEAST_EMBEDDINGS:
        return np.zeros(len(similarities), bool)
    median = np.median(similarities)
    deviation = 1.4826 * np.median(np.abs(similarities - median))
    return cast(np.ndarray, similarities < median - _FAR_DEVIATIONS * max(deviation, 1e-6))
