"""Which images of a listing are new, have changed, or are still being written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cxr_embed import storage
from cxr_embed.elements import ImageRef
from cxr_embed.errors import PlaceUnavailable, Unreachable
from cxr_embed.runs.arrivals import Arrivals


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals(1.0, lambda archive, state: None, lambda line: None)


def put(path: Path, content: str, age: float = 0) -> ImageRef:
    path.write_text(content)
    then = time.time() - age
    os.utime(path, (then, then))
    return ImageRef(str(path), path.stem)


def new(arrivals: Arrivals, *refs: ImageRef) -> set[str]:
    arrivals.begin_listing()
    return {ref.dicom_id for ref in arrivals.new(refs)}


def tried(arrivals: Arrivals, *refs: ImageRef, reason: str = "") -> None:
    arrivals.conclude(refs, {ref.path: reason for ref in refs} if reason else {})


def test_at_first_a_file_that_nobody_has_touched_for_a_minute_is_complete(
    arrivals: Arrivals, tmp_path: Path
) -> None:
    old, fresh = put(tmp_path / "old", "a", 61), put(tmp_path / "fresh", "a", 1)
    assert new(arrivals, old, fresh) == {"old"}
    tried(arrivals, old)
    assert new(arrivals, old, fresh) == {"fresh"}


def test_later_only_two_equal_looks_count(arrivals: Arrivals, tmp_path: Path) -> None:
    new(arrivals)
    assert new(arrivals, put(tmp_path / "1", "a", 1000)) == set()
    assert new(arrivals, put(tmp_path / "1", "ab", 1000)) == set()
    assert new(arrivals, put(tmp_path / "1", "ab", 999)) == set()
    assert new(arrivals, ImageRef(str(tmp_path / "1"), "1")) == {"1"}


def test_an_image_without_an_outcome_stays_new(arrivals: Arrivals, tmp_path: Path) -> None:
    ref = put(tmp_path / "1", "a", 100)
    assert new(arrivals, ref) == {"1"}
    assert new(arrivals, ref) == {"1"}


def test_an_image_with_a_record_is_done_even_if_it_changes(
    arrivals: Arrivals, tmp_path: Path
) -> None:
    ref = put(tmp_path / "1", "a", 100)
    assert new(arrivals, ref) == {"1"}
    tried(arrivals, ref)
    for _ in range(3):
        assert new(arrivals, put(tmp_path / "1", "abc", 50)) == set()


def test_a_failed_image_waits_until_it_has_changed_and_is_complete(
    arrivals: Arrivals, tmp_path: Path
) -> None:
    ref = put(tmp_path / "1", "a", 100)
    assert new(arrivals, ref) == {"1"}
    tried(arrivals, ref, reason="truncated")
    assert new(arrivals, ref) == set()
    assert new(arrivals, put(tmp_path / "1", "ab")) == set()
    assert new(arrivals, ref) == {"1"}


def test_a_file_that_a_listing_found_and_that_is_gone_is_left_out(
    arrivals: Arrivals, tmp_path: Path
) -> None:
    assert new(arrivals, ImageRef(str(tmp_path / "gone"), "gone")) == set()
    listed = ImageRef(str(tmp_path / "gone"), "gone", is_listed=True)
    assert new(arrivals, listed) == {"gone"}
    tried(arrivals, listed, reason="read_error")
    assert new(arrivals, listed) == set()


def test_an_image_whose_service_did_not_answer_is_tried_after_1_2_and_4_rounds(
    arrivals: Arrivals,
) -> None:
    ref, found = ImageRef("gs://bucket/1.dcm", "1"), []
    for number in range(9):
        if new(arrivals, ref):
            found.append(number)
            tried(arrivals, ref, reason="unreachable")
    assert found == [0, 1, 3, 7]


def test_a_failed_object_is_tried_again_if_its_tag_changes(
    arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [ImageRef(f"gs://bucket/{number}.dcm", str(number)) for number in range(3)]
    states, asked = dict.fromkeys((ref.path for ref in refs), "1/a"), []

    def state(path: str) -> str:
        asked.append(path)
        return states[path]

    monkeypatch.setattr(storage, "state", state)
    assert new(arrivals, *refs) == {"0", "1", "2"}
    tried(arrivals, *refs[:2])
    tried(arrivals, refs[2], reason="truncated")
    assert new(arrivals, *refs) == set()
    states[refs[0].path] = states[refs[2].path] = "1/b"
    assert new(arrivals, *refs) == {"2"}
    assert set(asked) == {refs[2].path}  # one request for each failed object, none for others


def test_a_service_that_does_not_answer_is_not_a_change(
    arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = ImageRef("gs://bucket/1.dcm", "1")
    monkeypatch.setattr(storage, "state", lambda path: "1/a")
    assert new(arrivals, ref) == {"1"}
    tried(arrivals, ref, reason="truncated")

    def unavailable(path: str) -> str:
        raise PlaceUnavailable(f"{path}: no answer")

    monkeypatch.setattr(storage, "state", unavailable)
    with pytest.raises(Unreachable, match=r"input cannot be read: gs://bucket/1\.dcm: no"):
        new(arrivals, ref)
