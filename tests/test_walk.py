"""A chunk of images from references to outcomes, with a real model and no Beam."""

from __future__ import annotations

import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from cxr_embed.transforms import chunk_sizes, chunks, unpacked
from cxr_embed.walk import EmbedSettings, Walk

from cxr_embed import ledger, models, monitor, walk
from cxr_embed.elements import ImageRef
from cxr_embed.outcomes import Embedded, Failed
from cxr_embed.records import decode_record
from cxr_embed.sources import find_images


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    (tmp_path / "in").mkdir()
    for number in range(10):
        path = tmp_path / f"in/{number}.dcm"
        path.write_bytes(make_dicom(np.roll(GRADIENT, 91 * number)))
    return find_images(str(tmp_path / "in"))


@pytest.fixture
def make_walk(tmp_path: Path, small_model: Path) -> Any:
    def make(batch_size: int = 1, **settings: Any) -> Walk:
        defaults: dict[str, Any] = {
            "run_id": f"{tmp_path}", "output_path": str(tmp_path / "out"),
            "model": models.ModelSettings(str(small_model)), "batch_size": batch_size,
            "decode_threads": 2, "file_type": "auto", "rendering": "cxr_foundation",
            "views": "all", "max_pixels": 10**8, "max_failures": 0,
        }  # fmt: skip
        return Walk(EmbedSettings(**(defaults | settings)))

    return make


@pytest.mark.parametrize(("batch_size", "calls"), [(1, 8), (3, 3), (100, 1)])
def test_every_image_ends_once_and_batches_are_filled_up(
    make_walk: Any, refs: list[ImageRef], tmp_path: Path, batch_size: int, calls: int
) -> None:
    Path(refs[1].path).write_bytes(b"rubbish")
    Path(refs[4].path).write_bytes(make_dicom()[:-100])
    walked = make_walk(batch_size).walk(refs)
    ends = {outcome.dicom_id: outcome for outcome in walked.outcomes}
    assert len(walked.outcomes) == len(ends) == 10
    assert {i for i, end in ends.items() if isinstance(end, Failed)} == {"1", "4"}
    assert walked.counts["embedded"] == 8
    assert walked.counts["failed/truncated"] == walked.counts["failed/not_an_image"] == 1
    assert walked.counts["model_calls"] == calls
    batches = {int(n[11:]): k for n, k in walked.counts.items() if n.startswith("batches_of/")}
    assert sum(batches.values()) == calls
    assert sum(images * count for images, count in batches.items()) == 8
    for ref in refs:
        if isinstance(ends[ref.dicom_id], Embedded):
            data = (tmp_path / "out" / ref.record).read_bytes()
            assert decode_record(data).image_id == ref.path


def test_batches_are_composed_the_same_way_each_time(
    make_walk: Any, refs: list[ImageRef], tmp_path: Path
) -> None:
    make_walk(4).walk(refs)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    make_walk(4, output_path=str(tmp_path / "again")).walk(refs)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_walks_take_turns_with_the_model(
    make_walk: Any, refs: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = [0, 0]  # now, at most
    embed_each = models.embed_each

    def watched(*arguments: Any) -> Any:
        inside[0] += 1
        inside[1] = max(inside)
        time.sleep(0.01)  # whoever may come in, does
        found = embed_each(*arguments)
        inside[0] -= 1
        return found

    monkeypatch.setattr(models, "embed_each", watched)
    walk = make_walk(decode_threads=4)
    ends = [walk.start([ref]).result for ref in refs]
    assert sum(end().counts["embedded"] for end in ends) == 10
    assert inside == [0, 1]


def test_threads_that_ask_for_a_pool_at_once_get_the_same_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two pools of the model would be two calls at a time."""

    class Slow(ThreadPoolExecutor):
        def __init__(self, *arguments: Any) -> None:
            time.sleep(0.05)
            super().__init__(*arguments)

    monkeypatch.setattr(walk, "ThreadPoolExecutor", Slow)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: walk._pool("a test's", 1), range(8)))
    assert len(set(map(id, found))) == 1


def test_what_it_wrote_is_in_the_ledger(
    make_walk: Any, refs: list[ImageRef], tmp_path: Path
) -> None:
    checked = make_walk().walk(refs).checked
    assert len(checked) == 10
    for line, ref in zip(checked, refs, strict=True):
        stamp = ledger.stamp_of(str(tmp_path / "out" / ref.record))
        assert line == ledger.Line(ref.record, ref.path, "4096", stamp or "")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_run_that_is_to_stop_starts_no_more(
    make_walk: Any, refs: list[ImageRef], batch_size: int
) -> None:
    walk = make_walk(batch_size)
    monitor.monitor_of(walk._settings.run_id).ask_to_stop()
    assert walk.walk(refs).outcomes == []


@pytest.mark.parametrize("batch_size", [1, 4])
def test_memory_does_not_grow_with_the_images(
    make_walk: Any, refs: list[ImageRef], batch_size: int
) -> None:
    """Radiographs of 2 MB pass one after the other; hardly more than a batch of them is held."""
    large = np.resize(GRADIENT, (1000, 1000))
    for ref in refs:
        Path(ref.path).write_bytes(make_dicom(large))
    walk = make_walk(batch_size)
    walk.walk(refs[:4])

    def peak(count: int) -> int:
        tracemalloc.start()
        walk.walk((refs * 6)[:count])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(60) < 1.3 * peak(20)


class TestChunks:
    def test_all_images_are_in_them_once_and_in_order(self, refs: list[ImageRef]) -> None:
        many = refs * 50
        for batch_size in (0, 1, 7, 64, 200):
            found = chunks(many, batch_size, walks=3)
            assert [ref for chunk in found for ref in unpacked(chunk)] == many

    def test_they_hold_whole_batches_and_at_most_64_images(self) -> None:
        assert next(chunk_sizes(10_000, 10, walks=3)) == 60
        assert next(chunk_sizes(10_000, 1, walks=3)) == 64
        assert next(chunk_sizes(10_000, 100, walks=3)) == 100
        assert all(size % 10 == 0 for size in chunk_sizes(10_000, 10, walks=3))

    def test_they_become_smaller_so_that_all_walks_end_together(self) -> None:
        sizes = list(chunk_sizes(10_000, 1, walks=4))
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-16:] == [1] * 16

    def test_they_do_not_shrink_where_workers_choose_the_batch_size(self) -> None:
        assert list(chunk_sizes(1000, 0, walks=3)) == [64] * 15 + [40]

    def test_few_images_are_spread_over_all_walks(self) -> None:
        assert list(chunk_sizes(10, 1, walks=4)) == [1] * 10
