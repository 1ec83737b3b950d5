"""Batches that are made in a thread and read in place."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cxr_embed.heads import batches


def _numbers(rows: np.ndarray, out: np.ndarray) -> None:
    out[:] = rows[:, None]


def test_batches_come_in_order() -> None:
    groups = [np.arange(start, start + 4) for start in range(0, 40, 4)] + [np.array([40])]
    found = [values.numpy().copy() for values in batches.ahead(_numbers, groups, 3)]
    for group, values in zip(groups, found, strict=True):
        np.testing.assert_array_equal(values, np.repeat(group[:, None], 3, axis=1))


def test_no_groups_no_batches() -> None:
    assert list(batches.ahead(_numbers, [], 3)) == []


def test_errors_come_through() -> None:
    def fill(rows: np.ndarray, out: np.ndarray) -> None:
        if rows[0] == 4:
            raise OSError("the file is gone")
        _numbers(rows, out)

    found = batches.ahead(fill, list(np.arange(9)[:, None]), 1)
    assert [next(found).numpy().item() for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="gone"):
        next(found)


def test_a_batch_stays_as_it_is_while_others_are_made() -> None:
    """However long a step takes: the thread does not fill the memory that is in use."""
    for number, values in enumerate(batches.ahead(_numbers, list(np.arange(30)[:, None]), 1)):
        time.sleep(0.002)
        assert values.numpy() == number


def test_a_tensor_is_of_the_same_memory() -> None:
    """Without a copy; other alignments make TensorFlow copy or fail."""
    for rows, columns in [(1, 1), (7, 3), (2048, 90)]:
        array = batches._empty_aligned(rows, columns)
        assert array.ctypes.data % 64 == 0
        array[:] = 1
        tensor = batches._as_tensor(array[: (rows + 1) // 2])
        array += 1
        assert tensor.numpy().min() == tensor.numpy().max() == 2
        assert tensor.shape == ((rows + 1) // 2, columns)


def test_the_memory_lives_as_long_as_its_tensor() -> None:
    array = batches._empty_aligned(512, 1024)
    array[:] = 3
    tensor = batches._as_tensor(array)
    del array
    others = [np.zeros((512, 1024), np.float32) for _ in range(8)]
    assert float(tensor.numpy().min()) == 3
    del others
