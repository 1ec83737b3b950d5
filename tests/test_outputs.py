"""What already stands in an output, and whether this run may add to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxr_embed import outputs
from cxr_embed.elements import ImageRef
from cxr_embed.errors import UsageError
from cxr_embed.records import Record, encode_record
from cxr_embed.runs.fingerprint import (
    OutputConfig,
    differences,
    make_fingerprint,
    read_output_config,
    write_output_config,
)


def fingerprint(**changes: str) -> dict[str, object]:
    settings = {
        "model_sha256": "m", "rendering": "dicom", "precision": "float32", "engine": "tensorflow",
    }  # fmt: skip
    return make_fingerprint(model_config=None, **(settings | changes))  # type: ignore[arg-type]


def ref(name: str) -> ImageRef:
    return ImageRef(f"in/{name}.dcm", name, f"{name}.tfrecord")


def record(name: str, size: int = 4) -> bytes:
    return encode_record(Record(f"in/{name}.dcm", np.ones(size, np.float32)))


class TestStanding:
    def test_valid_records_are_done_and_damaged_ones_are_not(self, tmp_path: Path) -> None:
        (tmp_path / "good.tfrecord").write_bytes(record("good"))
        (tmp_path / "torn.tfrecord").write_bytes(record("torn")[:-3])
        (tmp_path / "size.tfrecord").write_bytes(record("size", 5))
        (tmp_path / "moved.tfrecord").write_bytes(record("elsewhere"))
        refs = [ref(name) for name in ("good", "torn", "size", "moved", "missing")]
        listing = outputs.survey(str(tmp_path))
        standing = outputs.find_standing(str(tmp_path), refs, listing, 4)
        assert standing.done == {"good.tfrecord", "moved.tfrecord"}
        assert sorted(standing.torn) == ["size.tfrecord", "torn.tfrecord"]
        assert standing.other_ids == ["moved.tfrecord"]

    def test_one_listing_tells_records_leftovers_and_the_rest(self, tmp_path: Path) -> None:
        for name in ("p1/a.tfrecord", "p1/.cxr-embed-0.tmp", "_runs/r/embedded.csv", "notes.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
        found = outputs.survey(str(tmp_path))
        assert found.records == {"p1/a.tfrecord"}
        assert found.leftovers == ["p1/.cxr-embed-0.tmp"]


class TestSettings:
    def test_the_same_settings_may_go_on(self, tmp_path: Path) -> None:
        write_output_config(str(tmp_path), OutputConfig(fingerprint(), 4096))
        old = read_output_config(str(tmp_path))
        assert old == OutputConfig(fingerprint(), 4096)
        found = outputs.Survey({"a.tfrecord"})
        outputs.require_same_settings("out", old, fingerprint(), found)

    def test_other_settings_are_refused_by_name(self) -> None:
        old = OutputConfig(fingerprint(rendering="cxr_foundation", precision="bfloat16"), 4)
        with pytest.raises(UsageError, match=r"\(precision, rendering\).*--overwrite"):
            outputs.require_same_settings("out", old, fingerprint(), outputs.Survey())

    def test_records_of_unknown_origin_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"holds 1 records but no _embedding_config\.json"):
            outputs.require_same_settings("out", None, fingerprint(), outputs.Survey({"a"}))
        outputs.require_same_settings("out", None, fingerprint(), outputs.Survey())

    def test_a_damaged_config_is_a_users_matter(self, tmp_path: Path) -> None:
        (tmp_path / "_embedding_config.json").write_text("{]")
        with pytest.raises(UsageError, match="is damaged"):
            read_output_config(str(tmp_path))

    def test_an_optional_decoder_that_came_or_went_changes_nothing(self) -> None:
        with_it, without = fingerprint(), fingerprint()
        with_it["decoders"] = {"pillow": "1", "pylibjpeg-libjpeg": "2.5.0"}
        without["decoders"] = {"pillow": "1", "pylibjpeg-libjpeg": "absent"}
        assert differences(with_it, without) == []
        without["decoders"] = {"pillow": "2"}
        assert differences(with_it, without) == ["decoders.pillow", "decoders.pylibjpeg-libjpeg"]


class TestReplacing:
    old = OutputConfig(fingerprint(rendering="cxr_foundation"), 4)

    def test_records_made_otherwise_go_before_the_first_new_one(self) -> None:
        found = outputs.Survey({"a.tfrecord"})
        refs = [ref("a"), ref("b")]
        replace = outputs.records_to_replace("out", self.old, fingerprint(), found, refs)
        assert replace == ["a.tfrecord"]

    def test_records_made_the_same_way_stay_until_they_are_replaced(self) -> None:
        found = outputs.Survey({"a.tfrecord"})
        same = OutputConfig(fingerprint(), 4)
        assert outputs.records_to_replace("out", same, fingerprint(), found, [ref("a")]) == []

    def test_records_that_would_stay_behind_are_refused(self) -> None:
        found = outputs.Survey({"a.tfrecord", "old.tfrecord"})
        with pytest.raises(UsageError, match=r"old\.tfrecord"):
            outputs.records_to_replace("out", self.old, fingerprint(), found, [ref("a")])
