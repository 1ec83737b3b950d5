"""The run tables: rows are stored while a run goes on, and merged to one row an image."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import contents, emulator, spoken_to

from cxr_embed import storage
from cxr_embed.errors import MachineFault
from cxr_embed.outcomes import Embedded, Failed, Outcome, Skipped
from cxr_embed.runs import history as run_history
from cxr_embed.runs import tables
from cxr_embed.runs.folder import RunFiles, files_of, run_folder
from cxr_embed.runs.tables import TABLES, ShardWriter, merge, read_table

# A name may hold whatever a file system allows: quotes, line ends, bytes that are not UTF-8.
ODD = b'in/a,"b"\n\r;\xff\xc3.dcm'.decode("utf-8", "surrogateescape")


# For processes that are limited, measured or killed. VmHWM is their own peak; that of getrusage
# begins with the size of the process that started them.
PREAMBLE = """
import re, resource, signal, sys, time
from pathlib import Path
from cxr_embed.errors import MachineFault
from cxr_embed.outcomes import Embedded, Failed
from cxr_embed.runs.folder import files_of
from cxr_embed.runs.tables import ShardWriter, merge

folder = sys.argv[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def peak_memory():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def child(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own; `folder` is what it calls so."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + program, str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def embedded(path: str, **cells: object) -> Embedded:
    name = path.removeprefix("in/").removesuffix(".dcm")
    return Embedded(name, path, f"{name}.tfrecord", 72, 64, **cells)  # type: ignore[arg-type]


def failed(path: str, reason: str = "truncated", detail: str = "") -> Failed:
    return Failed(path.removeprefix("in/").removesuffix(".dcm"), path, reason, detail)


def store(folder: str | Path, *outcomes: Outcome) -> None:
    """Stores rows as one process does."""
    writer = ShardWriter(str(folder))
    for outcome in outcomes:
        writer.add(outcome)
    writer.flush()


def paths(folder: str | Path, table: str) -> list[str]:
    return [row["path"] for row in read_table(files_of(str(folder)), table)]


def shard_of(folder: Path) -> Path:
    (shard,) = (folder / "shards").iterdir()
    return shard


def all_tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


class TestShards:
    def test_rows_are_stored_within_seconds_without_a_flush(self, tmp_path: Path) -> None:
        writer = ShardWriter(str(tmp_path))
        since = time.monotonic()
        writer.add(embedded("in/1.dcm"))
        writer.add(failed("in/2.dcm"))
        while not (tmp_path / "shards").exists():
            assert time.monotonic() < since + tables.FLUSH_SECONDS + 10
            time.sleep(0.05)
        assert time.monotonic() - since > 0.5 * tables.FLUSH_SECONDS  # many rows at a time
        assert paths(tmp_path, "embedded") == ["in/1.dcm"]
        writer.add(embedded("in/3.dcm"))
        while len(paths(tmp_path, "embedded")) < 2:  # the next rows likewise
            assert time.monotonic() < since + 2 * tables.FLUSH_SECONDS + 10
            time.sleep(0.05)

    def test_a_flush_stores_all_rows_at_once(self, tmp_path: Path) -> None:
        store(tmp_path, embedded("in/1.dcm"), failed("in/2.dcm"), Skipped("3", "in/3", "s", "why"))
        (found,) = read_table(files_of(str(tmp_path)), "skipped")
        assert found == {"dicom_id": "3", "path": "in/3", "reason": "s", "detail": "why"}
        (found,) = read_table(files_of(str(tmp_path)), "failures")
        assert (found["stage"], found["reason"]) == ("decode", "truncated")

    def test_every_cell_of_an_embedded_image_comes_back(self, tmp_path: Path) -> None:
        whole = embedded(
            "in/1.dcm", warnings=("not_frontal", "lossy_compressed"), bytes=9, crc32c="0a",
            floats=4, file_state="boot/1/2/3/4",
        )  # fmt: skip
        store(tmp_path, whole)
        (found,) = read_table(files_of(str(tmp_path)), "embedded")
        assert list(found) == list(TABLES["embedded"])
        assert list(found.values()) == [
            "1", "in/1.dcm", "1.tfrecord", "72", "64", "not_frontal lossy_compressed", "9", "0a",
            "4", "boot/1/2/3/4",
        ]  # fmt: skip

    def test_each_process_has_a_shard_of_its_own(self, tmp_path: Path) -> None:
        store(tmp_path, embedded("in/1.dcm"))
        store(tmp_path, embedded("in/2.dcm"))
        assert len(files_of(str(tmp_path)).shards) == 2
        assert sorted(paths(tmp_path, "embedded")) == ["in/1.dcm", "in/2.dcm"]

    @pytest.mark.parametrize("path", [ODD, "in/Icon\r.dcm", "in/\r\n.dcm", 'in/"', "in/'\\.dcm"])
    def test_any_name_comes_back_and_harms_no_other(self, tmp_path: Path, path: str) -> None:
        store(tmp_path, embedded("in/0.dcm"), embedded(path), embedded("in/z.dcm"))
        assert paths(tmp_path, "embedded") == ["in/0.dcm", path, "in/z.dcm"]
        assert merge(files_of(str(tmp_path))).embedded == 3
        assert set(paths(tmp_path, "embedded")) == {"in/0.dcm", path, "in/z.dcm"}
        with (tmp_path / "embedded.csv").open(
            newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:  # as other programs read it
            assert path in {row["path"] for row in csv.DictReader(file)}

    def test_wherever_a_shard_is_cut_only_the_last_line_is_lost(self, tmp_path: Path) -> None:
        rows = [embedded("in/1.dcm"), failed(ODD), embedded("in/3.dcm"), embedded(f"{ODD}4")]
        store(tmp_path, *rows)
        shard = shard_of(tmp_path)
        whole = shard.read_bytes()
        ends = [whole.index(b"failures"), whole.index(b"embedded,3"), whole.rindex(b"embedded,")]
        for length in range(len(whole)):
            shard.write_bytes(whole[:length])
            found = len(paths(tmp_path, "embedded")) + len(paths(tmp_path, "failures"))
            assert found == sum(end <= length for end in ends), whole[:length]

    def test_a_write_that_breaks_off_leaves_no_half_line(self, tmp_path: Path) -> None:
        """The disk takes a part and is then full; later there is room again."""
        ran = child(
            """
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
writer = ShardWriter(folder)
writer.add(Failed("0", "in/0.dcm", "truncated"))
writer.flush()
for number in (1, 2, 3):
    writer.add(Failed(f"{number}", f'in/{number} "quoted".dcm', "truncated"))
try:
    writer.flush()
except MachineFault as fault:
    print(fault)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.add(Failed("4", "in/4.dcm", "truncated"))
writer.flush()
""",
            tmp_path,
        )
        assert "shards" in ran.stdout
        assert "cannot be written: File too large" in ran.stdout, ran.stderr
        expected = ["in/0.dcm", *(f'in/{n} "quoted".dcm' for n in (1, 2, 3)), "in/4.dcm"]
        assert paths(tmp_path, "failures") == expected

    def test_rows_that_cannot_be_stored_are_the_machines_fault(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file where the folder has to be")
        writer = ShardWriter(str(tmp_path / "run"))
        writer.add(embedded("in/1.dcm"))
        with pytest.raises(MachineFault, match=r"run/shards/.*cannot be written"):
            writer.flush()

    def test_rows_that_cannot_be_stored_later_end_the_run_at_the_next_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "FLUSH_SECONDS", 0.01)
        (tmp_path / "run").write_text("")
        writer = ShardWriter(str(tmp_path / "run"))
        deadline = time.monotonic() + 300
        with pytest.raises(MachineFault, match="cannot be written"):
            while time.monotonic() < deadline:
                writer.add(embedded("in/1.dcm"))
                time.sleep(0.01)
        with pytest.raises(MachineFault, match="cannot be written"):
            writer.flush()

    def test_a_process_has_one_writer_a_run(self, tmp_path: Path) -> None:
        one = tables.writer_of(str(tmp_path), "run-1")
        assert tables.writer_of(str(tmp_path), "run-1") is one
        assert tables.writer_of(str(tmp_path), "run-2") is not one


class TestKilled:
    @pytest.fixture(scope="class")
    def output(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The output of a run that was killed in the middle of a write."""
        output = tmp_path_factory.mktemp("killed")
        folder = run_folder(str(output), "20260101T000000.000Z-abcdef")
        program = """
writer = ShardWriter(folder)
for number in range(300):
    writer.add(Embedded(f"{number}", f"in/{number}.dcm", f"{number}.tfrecord", 1, 1))
    # The first ten are of a bundle that was repeated.
    path = f"in/{number}.dcm" if number < 10 else f"in/bad {number}.dcm"
    writer.add(Failed(f"{number}", path, "truncated"))
print("added", flush=True)
time.sleep(600)
"""
        with subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + program, folder], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"added\n"
            time.sleep(tables.FLUSH_SECONDS + 1)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        with shard_of(Path(folder)).open("ab") as file:
            file.write(b'embedded,torn,"in/torn')
        return output

    def test_its_rows_are_read(self, output: Path) -> None:
        (run,) = run_history.read_runs(str(output))
        assert run.manifest == {}
        assert len(list(read_table(run.files, "embedded"))) == 300
        assert len(list(read_table(run.files, "failures"))) == 300
        assert list(read_table(run.files, "skipped")) == []
        ends = run_history.read_ends([run])
        assert (ends.count("embedded"), ends.count("failed")) == (300, 290)
        assert ends.damaged_tables == 0

    def test_readers_and_the_merge_agree(self, output: Path, tmp_path: Path) -> None:
        output = shutil.copytree(output, tmp_path / "copy")
        (run,) = run_history.read_runs(str(output))
        before = run_history.read_ends([run]).by_path
        counts = merge(run.files)
        assert (counts.embedded, counts.failed) == (300, {"truncated": 290})
        assert run_history.read_ends(run_history.read_runs(str(output))).by_path == before


class TestMerge:
    def test_one_row_an_image_although_a_bundle_was_repeated(self, tmp_path: Path) -> None:
        store(tmp_path, embedded("in/1.dcm"), failed("in/2.dcm", "read_error"), failed("in/3.dcm"))
        store(tmp_path, failed("in/1.dcm", "write_error"), embedded("in/2.dcm"), failed("in/3.dcm"))
        counts = merge(files_of(str(tmp_path)))
        assert (counts.embedded, counts.failed, counts.skipped) == (2, {"truncated": 1}, {})
        assert counts.total == 3
        assert paths(tmp_path, "embedded") == ["in/1.dcm", "in/2.dcm"]
        assert paths(tmp_path, "failures") == ["in/3.dcm"]

    def test_all_tables_are_written_sorted_and_the_shards_are_gone(self, tmp_path: Path) -> None:
        store(tmp_path, *(embedded(f"in/{number}.dcm") for number in (3, 1, 2)))
        merge(files_of(str(tmp_path)))
        assert paths(tmp_path, "embedded") == ["in/1.dcm", "in/2.dcm", "in/3.dcm"]
        assert {path.name for path in tmp_path.iterdir()} == {f"{table}.csv" for table in TABLES}
        for table in ("failures", "skipped"):
            assert (tmp_path / f"{table}.csv").read_text() == ",".join(TABLES[table]) + "\n"

    def test_a_run_without_rows_has_empty_tables(self, tmp_path: Path) -> None:
        assert merge(RunFiles(str(tmp_path / "run"))).total == 0
        assert set(all_tables(tmp_path / "run")) == {f"{table}.csv" for table in TABLES}

    def test_the_order_of_shards_does_not_matter(self, tmp_path: Path) -> None:
        rows = [embedded(f"in/{n}.dcm") for n in range(20)] + [failed(f"in/{n}x") for n in range(9)]
        store(tmp_path / "one", *rows)
        for row in reversed(rows):
            store(tmp_path / "other", row)
        merge(files_of(str(tmp_path / "one")))
        merge(files_of(str(tmp_path / "other")))
        assert all_tables(tmp_path / "one") == all_tables(tmp_path / "other")

    def test_what_came_after_a_merge_is_added_by_the_next(self, tmp_path: Path) -> None:
        store(tmp_path, embedded("in/1.dcm"), failed("in/2.dcm"))
        merge(files_of(str(tmp_path)))
        store(tmp_path, embedded("in/2.dcm"), failed("in/1.dcm"), Skipped("3", "in/3.dcm", "s"))
        counts = merge(files_of(str(tmp_path)))
        assert (counts.embedded, counts.failed, counts.skipped) == (2, {}, {"s": 1})
        assert paths(tmp_path, "embedded") == ["in/1.dcm", "in/2.dcm"]

    @pytest.mark.parametrize("written", [(), ("failures",), ("failures", "skipped"), tuple(TABLES)])
    def test_it_may_be_repeated_wherever_it_was_interrupted(
        self, tmp_path: Path, written: tuple[str, ...]
    ) -> None:
        """Tables come first, in this order, and only then shards are removed."""
        done, broken = tmp_path / "done", tmp_path / "broken"
        store(done, embedded("in/1.dcm"), failed("in/2.dcm"), failed("in/1.dcm"), embedded(ODD))
        shutil.copytree(done / "shards", broken / "shards")
        merge(files_of(str(done)))
        for table in written:
            shutil.copy(done / f"{table}.csv", broken)
        assert merge(files_of(str(broken))).embedded == 2
        assert all_tables(broken) == all_tables(done)
        assert not (broken / "shards").exists()

    def test_one_that_cannot_write_keeps_the_shards(self, tmp_path: Path) -> None:
        store(tmp_path, embedded("in/1.dcm"))
        (tmp_path / "embedded.csv").mkdir()  # nothing can be renamed over it
        (tmp_path / "embedded.csv/x").touch()
        with pytest.raises(OSError, match="directory"):
            merge(RunFiles(str(tmp_path), {f"shards/{shard_of(tmp_path).name}"}))
        assert shard_of(tmp_path).exists()
        shutil.rmtree(tmp_path / "embedded.csv")
        assert merge(files_of(str(tmp_path))).embedded == 1

    def test_a_sort_that_finds_no_room_is_an_error_of_the_system(self, tmp_path: Path) -> None:
        """SQLite spills to temporary files; its own exceptions are none that callers know."""
        many_rows(tmp_path, 60_000)
        ran = child(
            """
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    merge(files_of(folder))
except OSError as error:
    print("refused:", error)
""",
            tmp_path,
        )
        assert ran.stdout.startswith("refused: the rows cannot be sorted: "), ran.stderr
        assert shard_of(tmp_path).exists()

    def test_memory_stays_flat(self, tmp_path: Path) -> None:
        few, many = (peak_memory(tmp_path / str(n), n) for n in (20_000, 200_000))
        assert many < few + 4_000_000  # the rows are 60 MB


def many_rows(folder: Path, count: int) -> None:
    (folder / "shards").mkdir(parents=True)
    with (folder / "shards/0.csv").open("w") as file:
        for n in range(count):
            path = f"files/p{n % 97}/p{n}/s{n}/{n:064x}"
            file.write(f"embedded,{n:064x},{path},{path},1,2,,3,0a,4,boot/1/2/3/4\n")


def peak_memory(folder: Path, count: int) -> int:
    """Returns the most bytes that a process held which merged so many rows."""
    many_rows(folder, count)
    ran = child("print(merge(files_of(folder)).embedded, peak_memory())", folder)
    merged, peak = ran.stdout.split()
    assert int(merged) == count
    return int(peak)


class TestReading:
    def test_a_table_of_an_older_version_lacks_columns(self, tmp_path: Path) -> None:
        (tmp_path / "embedded.csv").write_text(
            "dicom_id,path,record,rows,columns,warnings\n1,in/1.dcm,1.tfrecord,5,6,\ncut,in/2"
        )
        (row,) = read_table(files_of(str(tmp_path)), "embedded")
        assert (row["record"], row.get("file_state")) == ("1.tfrecord", None)

    def test_nothing_is_there(self, tmp_path: Path) -> None:
        assert list(read_table(files_of(str(tmp_path / "none")), "embedded")) == []

    def test_what_a_lost_power_left_is_passed_over(self, tmp_path: Path) -> None:
        store(tmp_path, embedded("in/1.dcm"))
        with shard_of(tmp_path).open("ab") as file:
            file.write(b"\0" * 300_000)
        assert paths(tmp_path, "embedded") == ["in/1.dcm"]


class TestBucket:
    @pytest.fixture(scope="class")
    def bucket(self) -> Iterator[str]:
        with emulator() as address, spoken_to(address):
            yield "gs://bucket"

    def test_shards_and_tables_are_objects(
        self, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "FLUSH_SECONDS_REMOTE", 0.5)
        folder = run_folder(f"{bucket}/out", "run-1")
        writer = ShardWriter(folder)
        writer.add(embedded("in/1.dcm"))
        writer.add(failed(ODD))
        deadline = time.monotonic() + 300
        while not files_of(folder).shards:  # without a flush
            assert time.monotonic() < deadline
            time.sleep(0.1)
        writer.add(embedded(ODD))
        writer.add(failed("in/2.dcm", detail='with "quotes", and commas'))
        writer.flush()
        assert len(files_of(folder).shards) == 2
        assert paths(folder, "embedded") == ["in/1.dcm", ODD]
        before = contents(folder)
        counts = merge(files_of(folder))
        assert (counts.embedded, counts.failed) == (2, {"truncated": 1})
        merged = contents(folder)
        assert set(merged) == {f"{table}.csv" for table in TABLES}
        assert set(paths(folder, "embedded")) == {"in/1.dcm", ODD}
        for name, data in before.items():  # as if interrupted before they were removed
            storage.write_whole(f"{folder}/{name}", data)
        merge(files_of(folder))
        assert contents(folder) == merged
        (run,) = run_history.read_runs(f"{bucket}/out")
        assert run_history.read_ends([run]).count("embedded") == 2

    def test_a_bucket_that_is_not_there_is_the_machines_fault(self, bucket: str) -> None:
        writer = ShardWriter("gs://another-bucket/out/_runs/run-1")
        writer.add(embedded("in/1.dcm"))
        with pytest.raises(MachineFault, match=r"gs://another-bucket/.*cannot be written"):
            writer.flush()
