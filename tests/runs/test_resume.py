"""Which images need no computing again, and whose records an output holds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import emulator, spoken_to

from cxr_embed import storage
from cxr_embed.elements import ImageRef, dicom_id_of
from cxr_embed.errors import UsageError
from cxr_embed.outcomes import Embedded
from cxr_embed.records import Record, encode_record
from cxr_embed.runs import resume
from cxr_embed.runs.fingerprint import Fingerprint, OutputConfig, make_fingerprint
from cxr_embed.runs.folder import files_of, run_folder
from cxr_embed.runs.resume import Done, Survey, find_done, known_records, survey
from cxr_embed.runs.tables import ShardWriter, merge
from cxr_embed.storage.file_state import file_state

ODD = b'in/a,"b"\n\r\xff.dcm'.decode("utf-8", "surrogateescape")
FLOATS = 4


def ref(path: str) -> ImageRef:
    return ImageRef(path, dicom_id_of(path))


def record_of(path: str, size: int = FLOATS) -> bytes:
    return encode_record(Record(path, np.ones(size, np.float32)))


def embed(
    output: str | Path, *paths: str, run_id: str = "20260101", is_merged: bool = True
) -> None:
    """Leaves in an output what a run leaves there that embedded these images."""
    folder = run_folder(str(output), run_id)
    writer = ShardWriter(folder)
    for path in paths:
        record = storage.join(str(output), ref(path).record)
        storage.write_whole(record, record_of(path))
        state = file_state(record)
        name = ref(path).dicom_id
        writer.add(Embedded(name, path, ref(path).record, 1, 1, floats=FLOATS, file_state=state))
    writer.flush()
    if is_merged:
        merge(files_of(folder))


def done_in(output: str | Path, *paths: str, size: int | None = FLOATS) -> Done:
    return find_done(str(output), [ref(path) for path in paths], survey(str(output)), size)


class Opened:
    """Counts the files that this process opens, by the interpreter's own audit events."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._is_on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._is_on and event == "open":
            self.paths.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str) else "")

    def during(self, output: Path, *paths: str) -> list[str]:
        """Returns the records that are opened to find what is done."""
        self.paths, self._is_on = [], True
        try:
            done = done_in(output, *paths)
        finally:
            self._is_on = False
        assert len(done.records) == len(paths)
        return sorted(Path(path).name for path in self.paths if path.endswith(".tfrecord"))


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()  # an audit hook stays for good


PATHS = [f"in/{number}.dcm" for number in range(50)]


class TestUnchanged:
    def test_records_that_have_not_changed_are_not_opened(
        self, tmp_path: Path, opened: Opened
    ) -> None:
        embed(tmp_path, *PATHS)
        assert opened.during(tmp_path, *PATHS) == []

    def test_those_of_a_run_that_was_killed_neither(self, tmp_path: Path, opened: Opened) -> None:
        embed(tmp_path, *PATHS, is_merged=False)
        assert opened.during(tmp_path, *PATHS) == []

    def test_only_the_one_that_changed_is_opened(self, tmp_path: Path, opened: Opened) -> None:
        embed(tmp_path, *PATHS)
        status = (tmp_path / "7.tfrecord").stat()
        (tmp_path / "7.tfrecord").write_bytes(record_of("in/7.dcm"))
        os.utime(tmp_path / "7.tfrecord", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert opened.during(tmp_path, *PATHS) == ["7.tfrecord"]

    def test_a_copied_output_is_opened_once(self, tmp_path: Path, opened: Opened) -> None:
        embed(tmp_path / "one", *PATHS)
        other = tmp_path / "other"
        shutil.copytree(tmp_path / "one", other)  # with its times
        assert len(opened.during(other, *PATHS)) == len(PATHS)
        done = done_in(other, *PATHS)
        resume.write_checked(run_folder(str(other), "20260102"), done.checked)
        assert opened.during(other, *PATHS) == []
        assert done_in(other, *PATHS).checked == {}  # nothing more to note

    def test_another_size_of_embedding_is_opened_and_refused(
        self, tmp_path: Path, opened: Opened
    ) -> None:
        embed(tmp_path, "in/1.dcm")
        assert done_in(tmp_path, "in/1.dcm", size=FLOATS + 1).damaged == ["1.tfrecord"]
        assert done_in(tmp_path, "in/1.dcm", size=None).records == {"1.tfrecord"}

    def test_what_was_noted_comes_back_whatever_is_in_a_name(self, tmp_path: Path) -> None:
        notes = {
            ref(path).record: resume.KnownRecord(path, "4", "state")
            for path in (ODD, "in/Icon\r", "in/é.dcm")
        }
        resume.write_checked(run_folder(str(tmp_path), "20260101"), notes)
        assert known_records(survey(str(tmp_path)).runs) == notes

    def test_the_latest_run_counts(self, tmp_path: Path) -> None:
        embed(tmp_path, "old/1.dcm", "old/2.dcm", run_id="20260101")
        embed(tmp_path, "new/1.dcm", run_id="20260102")
        known = known_records(survey(str(tmp_path)).runs)
        assert known["1.tfrecord"].image_id == "new/1.dcm"
        assert known["2.tfrecord"].image_id == "old/2.dcm"

    @pytest.mark.parametrize(
        "content",
        [b"", b"\0" * 200_000, b'"' * 300_001 + b"\n", b"dicom_id,path\n1,in/1.dcm\n",
         b"dicom_id,path,record\n1,in/1.dcm,1.tfrecord\n", b"dicom_id,path,rec"],
    )  # fmt: skip
    def test_a_damaged_table_costs_only_time(self, tmp_path: Path, content: bytes) -> None:
        embed(tmp_path, "in/1.dcm")
        folder = Path(run_folder(str(tmp_path), "20260101"))
        (folder / "embedded.csv").write_bytes(content)
        (folder / "checked.csv").write_bytes(content)
        done = done_in(tmp_path, "in/1.dcm")
        assert done.records == {"1.tfrecord"}
        assert list(done.checked) == ["1.tfrecord"]


class TestFindDone:
    def test_valid_records_are_done_and_damaged_ones_are_not(self, tmp_path: Path) -> None:
        embed(tmp_path, "in/good.dcm", "in/torn.dcm", "in/flipped.dcm", "in/size.dcm")
        torn, flipped = tmp_path / "torn.tfrecord", tmp_path / "flipped.tfrecord"
        torn.write_bytes(torn.read_bytes()[:-3])
        flipped.write_bytes(flipped.read_bytes()[:-20] + b"X" + flipped.read_bytes()[-19:])
        (tmp_path / "size.tfrecord").write_bytes(record_of("in/size.dcm", FLOATS + 1))
        (tmp_path / "empty.tfrecord").touch()
        names = ("good", "torn", "flipped", "size", "empty", "missing")
        done = done_in(tmp_path, *(f"in/{name}.dcm" for name in names))
        assert done.records == {"good.tfrecord"}
        assert set(done.damaged) == {f"{name}.tfrecord" for name in names[1:-1]}

    def test_an_output_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        assert done_in(tmp_path / "none", "in/1.dcm") == Done()

    def test_one_listing_finds_records_temporary_files_and_runs(self, tmp_path: Path) -> None:
        for name in ("p1/a.tfrecord", "p1/.cxr-embed-0.tmp", "_runs/r/embedded.csv", "notes.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = survey(str(tmp_path))
        assert found.records == {"p1/a.tfrecord"}
        assert found.temporary == ["p1/.cxr-embed-0.tmp"]
        assert [(run.run_id, run.names) for run in found.runs] == [("r", {"embedded.csv"})]


class TestWhose:
    """A record belongs to the image that its `image/id` names."""

    def test_another_images_record_is_refused_with_both_paths(self, tmp_path: Path) -> None:
        embed(tmp_path, "first/IM1.dcm")
        done = done_in(tmp_path, "second/IM1.dcm")
        with pytest.raises(UsageError) as caught:
            resume.require_own_records(str(tmp_path), done)
        message = str(caught.value)
        for part in (
            f"{tmp_path}/IM1.tfrecord", "first/IM1.dcm", "second/IM1.dcm", "--output_layout=mirror",
            "--moved_inputs", "another --output_path",
        ):  # fmt: skip
            assert part in message
        assert "more records" not in message

    def test_so_is_one_that_no_run_noted(self, tmp_path: Path) -> None:
        (tmp_path / "IM1.tfrecord").write_bytes(record_of("first/IM1.dcm"))
        done = done_in(tmp_path, "second/IM1.dcm")
        assert done.others == [("IM1.tfrecord", "first/IM1.dcm", "second/IM1.dcm")]

    def test_all_of_them_are_counted(self, tmp_path: Path) -> None:
        embed(tmp_path, *(f"first/{number}.dcm" for number in range(5)))
        done = done_in(tmp_path, *(f"second/{number}.dcm" for number in range(5)))
        with pytest.raises(UsageError, match=r"\(and 4 more records\)"):
            resume.require_own_records(str(tmp_path), done)

    def test_a_relative_and_an_absolute_path_of_one_file_are_one_image(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("in").mkdir()
        Path("in/1.dcm").touch()
        Path("link").symlink_to("in")
        embed("out", "in/1.dcm")
        for path in (f"{tmp_path}/in/1.dcm", "./in/1.dcm", "in/../in/1.dcm", "link/1.dcm"):
            done = done_in("out", path)
            assert (done.records, done.others) == ({"1.tfrecord"}, [])
        Path("in/1.dcm").unlink()  # now the two cannot be compared
        assert len(done_in("out", f"{tmp_path}/in/1.dcm").others) == 1

    def test_names_that_are_not_text_are_compared_too(self, tmp_path: Path) -> None:
        embed(tmp_path, ODD)
        assert done_in(tmp_path, ODD).others == []
        (tmp_path / "_runs/20260101/embedded.csv").unlink()  # by the record itself
        assert done_in(tmp_path, ODD).others == []

    def test_a_path_with_a_nul_is_another_path(self, tmp_path: Path) -> None:
        (tmp_path / "1.tfrecord").write_bytes(record_of("in/\0/1.dcm"))
        assert len(done_in(tmp_path, "in/1.dcm").others) == 1


class TestBucket:
    @pytest.fixture(scope="class")
    def bucket(self) -> Iterator[str]:
        with emulator() as address, spoken_to(address):
            yield "gs://bucket"

    def test_a_record_that_is_there_is_valid(self, bucket: str) -> None:
        storage.write_whole(f"{bucket}/valid/1.tfrecord", b"not looked at")
        done = done_in(f"{bucket}/valid", "gs://in/1.dcm", "gs://in/2.dcm")
        assert (done.records, done.others) == ({"1.tfrecord"}, [])

    @pytest.mark.parametrize("is_merged", [True, False])
    def test_whose_it_is_is_known_from_earlier_runs(self, bucket: str, is_merged: bool) -> None:
        output = f"{bucket}/whose-{is_merged}"
        embed(output, "gs://in/first/IM1.dcm", "gs://in/first/2.dcm", is_merged=is_merged)
        storage.write_whole(f"{output}/IM1.tfrecord", b"not opened", replace=True)
        done = done_in(output, "gs://in/second/IM1.dcm", "gs://in/first/2.dcm")
        with pytest.raises(UsageError) as caught:
            resume.require_own_records(output, done)
        assert f"{output}/IM1.tfrecord is the record of gs://in/first/IM1.dcm" in str(caught.value)
        assert "not of gs://in/second/IM1.dcm" in str(caught.value)
        assert done.records == {"IM1.tfrecord", "2.tfrecord"}
        assert done.checked == {}


def fingerprint(**changes: str) -> Fingerprint:
    settings = {
        "model_sha256": "m", "rendering": "dicom", "precision": "float32", "engine": "tensorflow",
    }  # fmt: skip
    return make_fingerprint(model_config=None, **(settings | changes))


class TestSettings:
    def test_the_same_settings_may_go_on(self) -> None:
        old = OutputConfig(fingerprint(), FLOATS)
        resume.require_same_settings("out", old, fingerprint(), Survey({"a.tfrecord"}))

    def test_other_settings_are_refused_by_name(self) -> None:
        old = OutputConfig(fingerprint(rendering="cxr_foundation", precision="bfloat16"), FLOATS)
        with pytest.raises(UsageError, match=r"\(precision, rendering\).*--overwrite"):
            resume.require_same_settings("out", old, fingerprint(), Survey())

    def test_records_of_unknown_origin_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"holds 1 records but no _embedding_config\.json"):
            resume.require_same_settings("out", None, fingerprint(), Survey({"a"}))
        resume.require_same_settings("out", None, fingerprint(), Survey())


class TestReplacing:
    old = OutputConfig(fingerprint(rendering="cxr_foundation"), FLOATS)

    def test_records_made_otherwise_go_before_the_first_new_one(self) -> None:
        found, refs = Survey({"a.tfrecord"}), [ref("in/a.dcm"), ref("in/b.dcm")]
        replace = resume.records_to_replace("out", self.old, fingerprint(), found, refs)
        assert replace == ["a.tfrecord"]

    def test_records_made_the_same_way_stay_until_they_are_replaced(self) -> None:
        found, same = Survey({"a.tfrecord"}), OutputConfig(fingerprint(), FLOATS)
        refs = [ref("in/a.dcm")]
        assert resume.records_to_replace("out", same, fingerprint(), found, refs) == []

    def test_records_that_would_stay_behind_are_refused(self) -> None:
        found = Survey({"a.tfrecord", "old.tfrecord"})
        with pytest.raises(UsageError, match=r"old\.tfrecord"):
            resume.records_to_replace("out", self.old, fingerprint(), found, [ref("in/a.dcm")])


def test_only_files_of_dead_runs_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".cxr-embed-dead.tmp").write_bytes(b"half")
    with storage.open_whole(str(tmp_path / "a.tfrecord")) as file:
        file.write(b"whole")
        found = survey(str(tmp_path))
        assert len(found.temporary) == 2
        resume.remove_abandoned(str(tmp_path), found.temporary)
        assert len(survey(str(tmp_path)).temporary) == 1
    assert (tmp_path / "a.tfrecord").read_bytes() == b"whole"
