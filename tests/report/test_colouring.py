"""Columns become few groups, of names or of ranges."""

from __future__ import annotations

from cxr_embed.report.colouring import MOST_GROUPS, OTHERS, colour


def test_names_by_how_common_they_are() -> None:
    found = colour("finding", ["b", "a", "a", "", "c", "a", "b"])
    assert found.groups == [("a", 3), ("b", 2), ("c", 1)]
    assert found.codes == [1, 0, 0, -1, 2, 0, 1]
    assert found.without == 1
    assert not found.is_ordered


def test_few_numbers_by_their_order() -> None:
    assert [name for name, _ in colour("x", ["1", "-1", "0", "1"]).groups] == ["-1", "0", "1"]


def test_many_names_are_folded() -> None:
    values = [f"n{i}" for i in range(30) for _ in range(30 - i)]
    found = colour("x", values)
    assert len(found.groups) == MOST_GROUPS
    assert found.groups[0] == ("n0", 30)
    assert found.groups[-1][0] == OTHERS
    assert sum(count for _, count in found.groups) == len(values)


def test_many_numbers_become_ranges() -> None:
    found = colour("age", [*map(str, range(100)), ""])
    assert found.is_ordered
    assert [count for _, count in found.groups] == [20] * 5
    assert found.groups[0][0] == "0 to below 20"
    assert found.groups[-1][0] == "80 to 99"
    assert (found.codes[0], found.codes[20], found.codes[99], found.codes[100]) == (0, 1, 4, -1)


def test_numbers_of_which_one_is_most() -> None:
    found = colour("x", ["0"] * 90 + [str(number) for number in range(10)])
    assert found.groups[0] == ("0 to below 1", 91) or sum(c for _, c in found.groups) == 100
    assert -1 not in found.codes


def test_nothing_at_all() -> None:
    found = colour("x", ["", ""])
    assert (found.groups, found.codes) == ([], [-1, -1])
