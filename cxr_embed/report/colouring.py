"""Groups the values of a column, to colour the points of a map."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# The number of distinct colours in the page's style.
MOST_GROUPS = 8

OTHERS = "others"
NO_VALUE = "no value"


@dataclass(frozen=True)
class Colouring:
    """One way to colour points.

    Attributes:
        name: name of the column.
        groups: names and counts of the groups, in the order of their colours.
        codes: for each point the number of its group, or -1 for none.
        is_ordered: whether the groups are ascending ranges of numbers.
    """

    name: str
    groups: list[tuple[str, int]]
    codes: list[int]
    is_ordered: bool = False

    @property
    def without(self) -> int:
        """Number of points without a value."""
        return self.codes.count(-1)

    def class_of(self, code: int) -> str:
        """Returns the CSS class of a group's colour: ordered groups go from dark to bright."""
        return "none" if code < 0 else f"{'s' if self.is_ordered else 'c'}{code}"


def colour(name: str, values: Sequence[str]) -> Colouring:
    """Groups a column's values.

    More than eight different numbers become five ranges of about equal counts. Of more than eight
    other values, the seven most common are kept and the rest become `others`.

    Args:
        name: name of the column.
        values: one for each point; empty for no value.
    """
    kinds = Counter(value for value in values if value)
    if len(kinds) <= MOST_GROUPS:
        return _by_names(name, values, _in_order(kinds))
    numbers = [_number(value) for value in values]
    if all(math.isfinite(n) for n, value in zip(numbers, values, strict=True) if value):
        return _by_ranges(name, numbers)
    kept = [kind for kind, _ in kinds.most_common(MOST_GROUPS - 1)]
    folded = [value if value in kept or not value else OTHERS for value in values]
    return _by_names(name, folded, [*sorted(kept), OTHERS])


def _in_order(kinds: Counter[str]) -> list[str]:
    """Sorts numbers by value, and names by frequency."""
    numbers = {kind: _number(kind) for kind in kinds}
    if all(math.isfinite(number) for number in numbers.values()):
        return sorted(kinds, key=lambda kind: numbers[kind])
    return [kind for kind, _ in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]


def _by_names(name: str, values: Sequence[str], names: list[str]) -> Colouring:
    code_of = {value: code for code, value in enumerate(names)}
    codes = [code_of.get(value, -1) for value in values]
    counts = Counter(codes)
    return Colouring(name, [(value, counts[code]) for code, value in enumerate(names)], codes)


def _by_ranges(name: str, numbers: list[float]) -> Colouring:
    ordered = sorted(number for number in numbers if math.isfinite(number))
    cuts = sorted({ordered[len(ordered) * part // 5] for part in range(1, 5)} - {ordered[0]})
    codes = [
        sum(number >= cut for cut in cuts) if math.isfinite(number) else -1 for number in numbers
    ]
    ends = [ordered[0], *cuts, ordered[-1]]
    counts = Counter(codes)
    groups = []
    for code, (low, high) in enumerate(itertools.pairwise(ends)):
        last = code == len(cuts)
        words = f"{low:g} to {high:g}" if last else f"{low:g} to below {high:g}"
        groups.append((words, counts[code]))
    return Colouring(name, groups, codes, is_ordered=True)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
