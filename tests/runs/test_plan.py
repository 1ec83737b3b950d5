"""What a run is going to do, found without writing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import emulator, spoken_to

from cxr_embed.elements import ImageRef, dicom_id_of
from cxr_embed.errors import UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.records import Record, encode_record
from cxr_embed.runs.fingerprint import CONFIG_NAME, OutputConfig, write_output_config
from cxr_embed.runs.plan import Job, Plan, count_of_images, make_plan

SIZE = 64  # floats of the tiny model


def refs_of(*paths: str) -> list[ImageRef]:
    return [ImageRef(path, dicom_id_of(path)) for path in paths]


class Planner:
    """Makes plans for one output, and keeps what was logged."""

    def __init__(self, output: Path, model: Path) -> None:
        self.output, self.model = output, model
        self.lines: list[str] = []

    def __call__(self, *paths: str, **settings: Any) -> Plan:
        self.lines.clear()
        job = Job(refs_of(*paths), str(self.output), ModelSettings(str(self.model)), **settings)
        return make_plan(job, self.lines.append)

    def embedded(self, *paths: str, **settings: Any) -> None:
        """Leaves records of these images, and how they were made."""
        self.output.mkdir(exist_ok=True)
        plan = self(*paths, moved_inputs=True, **settings)
        for ref in plan.job.refs:
            record = encode_record(Record(ref.path, np.ones(SIZE, np.float32)))
            (self.output / ref.record).write_bytes(record)
        write_output_config(str(self.output), OutputConfig(plan.config_fingerprint, SIZE))


@pytest.fixture
def planned(tmp_path: Path, tiny_model: Path) -> Planner:
    return Planner(tmp_path / "out", tiny_model)


class TestTodo:
    def test_in_a_new_output_everything_and_nothing_is_written(self, planned: Planner) -> None:
        plan = planned("in/1.dcm", "in/2.dcm")
        assert [ref.path for ref in plan.todo] == ["in/1.dcm", "in/2.dcm"]
        assert plan.embedding_size is None
        assert plan.config_fingerprint == plan.fingerprint
        assert not planned.output.exists()
        assert planned.lines == []

    def test_only_images_without_a_valid_record(self, planned: Planner) -> None:
        planned.embedded("in/1.dcm", "in/2.dcm")
        (planned.output / "2.tfrecord").write_bytes(b"torn")
        plan = planned("in/1.dcm", "in/2.dcm", "in/3.dcm")
        assert [ref.dicom_id for ref in plan.todo] == ["2", "3"]
        assert plan.embedding_size == SIZE
        assert set(plan.checked) == {"1.tfrecord"}
        assert planned.lines == [
            "1 image already there, not computed again",
            "1 damaged records will be computed again",
        ]

    def test_everything_with_overwrite(self, planned: Planner) -> None:
        planned.embedded("in/1.dcm")
        plan = planned("in/1.dcm", overwrite=True)
        assert len(plan.todo) == 1
        assert plan.replace == []  # made the same way: they stay until they are replaced

    def test_runs_have_folders_of_their_own(self, planned: Planner) -> None:
        one, other = planned("in/1.dcm"), planned("in/1.dcm")
        assert Path(one.folder).parent == planned.output / "_runs"
        assert one.folder != other.folder


class TestWhose:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_record_of_another_image_is_refused(self, planned: Planner, overwrite: bool) -> None:
        planned.embedded("first/IM1.dcm")
        with pytest.raises(UsageError, match=r"first/IM1\.dcm, not of second/IM1\.dcm"):
            planned("second/IM1.dcm", overwrite=overwrite)

    def test_moved_inputs_keeps_it_and_names_an_example(self, planned: Planner) -> None:
        planned.embedded("first/1.dcm", "first/2.dcm")
        plan = planned("second/1.dcm", "second/2.dcm", "second/3.dcm", moved_inputs=True)
        assert [ref.dicom_id for ref in plan.todo] == ["3"]
        assert any(line.startswith("warning: 2 records") for line in planned.lines)


class TestSettings:
    def test_other_settings_are_refused(self, planned: Planner) -> None:
        planned.embedded("in/1.dcm")
        with pytest.raises(UsageError, match=r"made with other settings \(rendering\)"):
            planned("in/1.dcm", rendering="dicom")

    def test_with_overwrite_old_records_go_first(self, planned: Planner) -> None:
        planned.embedded("in/1.dcm", "in/2.dcm")
        plan = planned("in/1.dcm", "in/2.dcm", "in/3.dcm", rendering="dicom", overwrite=True)
        assert plan.replace == ["1.tfrecord", "2.tfrecord"]
        assert len(plan.todo) == 3
        assert plan.config_fingerprint == plan.fingerprint
        assert plan.embedding_size is None

    def test_what_no_record_was_made_with_is_not_kept(self, planned: Planner) -> None:
        planned.output.mkdir()
        old = dict(planned("in/1.dcm").fingerprint, rendering="dicom", of_an_old_version="1")
        write_output_config(str(planned.output), OutputConfig(old, SIZE))
        plan = planned("in/1.dcm", overwrite=True)
        assert plan.config_fingerprint == plan.fingerprint

    def test_a_damaged_config_is_refused_and_overwritten(self, planned: Planner) -> None:
        planned.embedded("in/1.dcm")
        (planned.output / CONFIG_NAME).write_text("{")
        with pytest.raises(UsageError, match="is damaged"):
            planned("in/1.dcm")
        assert planned("in/1.dcm", overwrite=True).replace == ["1.tfrecord"]


class TestRefused:
    def test_an_output_that_is_no_folder(self, planned: Planner) -> None:
        planned.output.write_text("")
        with pytest.raises(UsageError, match=r"cannot be written to: .* is not a folder"):
            planned("in/1.dcm")

    def test_a_model_that_is_not_there(self, planned: Planner, tmp_path: Path) -> None:
        planned.model = tmp_path / "none"
        with pytest.raises(UsageError, match="does not exist"):
            planned("in/1.dcm")

    def test_an_output_that_dataflows_workers_do_not_have(self, planned: Planner) -> None:
        with pytest.raises(UsageError, match=r"out is a local path.*pass gs://bucket/prefix"):
            planned("gs://b/1.dcm", runner="DataflowRunner")

    def test_an_image_that_dataflows_workers_do_not_have(self, planned: Planner) -> None:
        refs, model = refs_of("gs://b/1.dcm", "in/2.dcm"), ModelSettings(str(planned.model))
        with (
            emulator() as address,
            spoken_to(address),
            pytest.raises(UsageError, match=r"in/2\.dcm is a local path.*copy the images"),
        ):
            make_plan(Job(refs, "gs://bucket/out", model, runner="DataflowRunner"), print)

    def test_other_runners_may_share_a_disk(self, planned: Planner) -> None:
        assert len(planned("in/1.dcm", runner="PortableRunner").todo) == 1


@pytest.mark.parametrize(("count", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_counts_for_people(count: int, words: str) -> None:
    assert count_of_images(count) == words
