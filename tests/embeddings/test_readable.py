"""What is readable is read, and each thing that is not has its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written import SIZE, mimic_path, values, write_output

from cxr_embed.embeddings.loading import load_embeddings
from cxr_embed.embeddings.readable import load_readable
from cxr_embed.records import Record, encode_record

PATHS = [mimic_path(number) for number in range(12)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_output(tmp_path / "out", PATHS, values(12))
    return tmp_path / "out"


def test_a_sound_output_is_read_as_ever(output: Path) -> None:
    found, damaged = load_readable(str(output))
    assert damaged == []
    assert found.ids == load_embeddings(output).ids


def test_the_rows_around_a_damaged_record_stay_in_place(output: Path) -> None:
    names = sorted(output.glob("*.tfrecord"))
    for at in (0, 5, 11):
        names[at].write_bytes(b"torn")
    found, damaged = load_readable(str(output))
    assert [path for path, _ in damaged] == [str(names[at]) for at in (0, 5, 11)]
    sound = [at for at in range(12) if at not in (0, 5, 11)]
    assert found.image_ids == [PATHS[at] for at in sound]
    np.testing.assert_array_equal(found.values, values(12)[sound])


def test_the_size_is_what_most_records_have_or_what_is_given(output: Path) -> None:
    first = min(output.glob("*.tfrecord"))
    first.write_bytes(encode_record(Record(PATHS[0], np.ones(3, np.float32))))
    found, damaged = load_readable(str(output))
    assert found.values.shape == (11, SIZE)
    assert damaged[0].reason == f"3 floats; the others have {SIZE}"
    found, damaged = load_readable(str(output), size=3)
    assert found.image_ids == [PATHS[0]]
    assert len(damaged) == 11


def test_an_empty_folder_has_no_embeddings(tmp_path: Path) -> None:
    found, damaged = load_readable(str(tmp_path))
    assert (len(found), damaged) == (0, [])
