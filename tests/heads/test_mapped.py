"""Large embeddings are converted once, and a changed source is never taken for the old one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_records

from cxr_embed.elements import CONFIG_NAME
from cxr_embed.errors import UsageError
from cxr_embed.heads import mapped


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/cxr-embed/embeddings"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    write_records(tmp_path / "out", np.arange(40, dtype=np.float32).reshape(10, 4))
    return tmp_path / "out"


def test_small_ones_stay_in_memory(cache: Path, records: Path) -> None:
    found = mapped.open_embeddings(str(records))
    assert found.values.shape == (10, 4)
    assert not isinstance(found.values, np.memmap)
    assert not cache.exists()


def test_large_ones_are_mapped_and_opened_again(cache: Path, records: Path) -> None:
    lines: list[str] = []
    first, again = (
        mapped.open_embeddings(str(records), lines.append, map_from_bytes=1) for _ in range(2)
    )
    assert isinstance(again.values, np.memmap)
    assert again.values.dtype == np.float32
    np.testing.assert_array_equal(again.values, np.arange(40).reshape(10, 4))
    assert (first.ids, first.image_ids) == (again.ids, again.image_ids)
    assert [line.split()[0] for line in lines] == ["keeping", "embeddings"]
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_a_changed_source_is_read_again(cache: Path, records: Path) -> None:
    mapped.open_embeddings(str(records), map_from_bytes=1)
    path = next(records.iterdir())
    before = path.stat()
    write_records(records, -np.arange(40, dtype=np.float32).reshape(10, 4))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    found = mapped.open_embeddings(str(records), map_from_bytes=1)
    assert found.values.min() == -39
    assert len(list(cache.iterdir())) == 2  # the old matrix is gone


def test_a_half_written_matrix_is_not_used(cache: Path, records: Path) -> None:
    mapped.open_embeddings(str(records), map_from_bytes=1)
    (names,) = cache.glob("*.json")
    names.unlink()
    found = mapped.open_embeddings(str(records), map_from_bytes=1)
    assert found.values.shape == (10, 4)
    assert list(cache.glob("*.json"))


def test_a_cache_that_cannot_be_written(cache: Path, records: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    lines: list[str] = []
    found = mapped.open_embeddings(str(records), lines.append, map_from_bytes=1)
    assert found.values.shape == (10, 4)
    assert any(line.startswith("warning") for line in lines)


def test_taking_and_walking_rows(cache: Path, records: Path) -> None:
    found = mapped.open_embeddings(str(records), map_from_bytes=1)
    rows = np.array([3, 0, 3])
    taken = found.take(rows)
    assert taken[:, 0].tolist() == [12, 0, 12]
    taken[:] = 7  # a copy, to do with as one likes
    assert [block[:, 0].tolist() for block in found.blocks(rows)] == [[12, 0, 12]]


def test_the_fingerprint_comes_along(cache: Path, records: Path) -> None:
    assert mapped.open_embeddings(str(records)).fingerprint is None
    (records / CONFIG_NAME).write_text(json.dumps({"rendering": "dicom", "embedding_size": 4}))
    assert mapped.open_embeddings(str(records)).fingerprint == {"rendering": "dicom"}
    one = next(records.glob("*.tfrecord"))
    assert mapped.open_embeddings(str(one)).fingerprint is None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        mapped.open_embeddings(str(tmp_path / "none"))
    with pytest.raises(UsageError):
        mapped.open_embeddings(str(tmp_path))


def _two_sets(folder: Path, rendering: str = "dicom") -> tuple[str, str]:
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    write_records(folder / "old", values[:6])
    write_records(folder / "new", values[6:] + 1)
    for number, path in enumerate(sorted((folder / "new").iterdir())):
        path.rename(path.with_name(f"later{number}.tfrecord"))
    for name, how in (("old", "dicom"), ("new", rendering)):
        config = {"rendering": how, "decoders": {"pillow": "1"}, "embedding_size": 4}
        (folder / name / CONFIG_NAME).write_text(json.dumps(config))
    return str(folder / "old"), str(folder / "new")


def test_several_sets_are_one_matrix_and_know_their_source(cache: Path, tmp_path: Path) -> None:
    sets = _two_sets(tmp_path)
    lines: list[str] = []
    for _ in range(2):  # read, then from the cache
        found = mapped.open_embeddings(sets, lines.append, map_from_bytes=1)
        assert found.values.shape == (10, 4)
        assert found.sets == sets
        assert found.sources_of(np.array([0, 9])).tolist() == list(sets)
        assert found.fingerprint == {"rendering": "dicom", "decoders": {"pillow": "1"}}
    assert [line.split()[0] for line in lines] == ["keeping", "embeddings"]
    assert mapped.open_embeddings(sets[0]).sources_of(np.array([0])) is None


def test_sets_made_with_different_settings_are_refused(cache: Path, tmp_path: Path) -> None:
    sets = _two_sets(tmp_path, "cxr_foundation")
    with pytest.raises(
        UsageError, match=r"different settings \(rendering\): pass --mixed_settings"
    ):
        mapped.open_embeddings(sets)
    lines: list[str] = []
    found = mapped.open_embeddings(sets, lines.append, mixed_settings=True)
    assert (len(found), found.fingerprint) == (10, None)
    assert lines[0].startswith("warning: ")


def test_a_set_that_does_not_record_its_settings_gives_a_warning(
    cache: Path, tmp_path: Path
) -> None:
    sets = _two_sets(tmp_path)
    (tmp_path / "new" / CONFIG_NAME).unlink()
    lines: list[str] = []
    assert mapped.open_embeddings(sets, lines.append).fingerprint is None
    assert "new does not record how its embeddings were made" in lines[0]
