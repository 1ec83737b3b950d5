"""Counts of a run while it goes on, and how it is stopped; with the tables behind them."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cxr_embed.outcomes import Embedded, Failed, Skipped
from cxr_embed.runs.folder import RunFiles, files_of, new_run_id, run_folder
from cxr_embed.runs.progress import Progress, RunStopped, progress_of
from cxr_embed.runs.run_tables import RunTables
from cxr_embed.runs.tables import read_table

EMBEDDED = Embedded("1", "in/1.dcm", "1.tfrecord", 1, 1)
FAILED = Failed("2", "in/2.dcm", "truncated")
SKIPPED = Skipped("3", "in/3.dcm", "not_frontal")


class TestProgress:
    def test_outcomes_are_counted_by_table(self) -> None:
        progress = Progress()
        for outcome in (EMBEDDED, FAILED, EMBEDDED, SKIPPED):
            progress.add(outcome)
        assert progress.counts() == {"embedded": 2, "failures": 1, "skipped": 1}

    def test_threads_lose_no_count(self) -> None:
        progress = Progress()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(progress.add, [EMBEDDED] * 5000))
        assert progress.counts() == {"embedded": 5000}

    def test_the_time_of_the_first_image_is_kept(self) -> None:
        progress = Progress()
        assert progress.first is None
        since = time.perf_counter()
        progress.add(FAILED)
        first = progress.first
        progress.add(EMBEDDED)
        assert first is not None
        assert since <= first == progress.first

    def test_failures_beyond_the_limit_stop_a_run_and_the_limit_itself_does_not(self) -> None:
        progress = Progress(max_failures=2)
        for _ in range(2):
            progress.add(FAILED)
        assert not progress.has_too_many_failures
        progress.add(FAILED)
        assert progress.has_too_many_failures

    def test_no_limit_is_never_reached(self) -> None:
        progress = Progress(max_failures=0)
        progress.set_counts({"failures": 10**6})
        assert not progress.has_too_many_failures

    def test_counts_of_a_job_elsewhere_replace_its_own(self) -> None:
        progress = Progress(max_failures=3)
        progress.add(EMBEDDED)
        progress.set_counts({"embedded": 7, "failures": 4})
        assert progress.counts() == {"embedded": 7, "failures": 4}
        assert progress.has_too_many_failures

    def test_a_process_counts_each_run_once(self) -> None:
        run_id = new_run_id()
        assert progress_of(run_id, 5) is progress_of(run_id)
        assert progress_of(run_id) is not progress_of(new_run_id())


def files(tables: RunTables) -> RunFiles:
    return files_of(run_folder(tables.output_path, tables.run_id))


class TestRunTables:
    @pytest.fixture
    def tables(self, tmp_path: Path) -> RunTables:
        found: RunTables = pickle.loads(pickle.dumps(RunTables(str(tmp_path), new_run_id(), 1)))
        found.open()
        return found

    def test_an_outcome_is_counted_and_stored(self, tables: RunTables) -> None:
        tables.add(EMBEDDED)
        tables.add(SKIPPED)
        tables.flush()
        assert progress_of(tables.run_id).counts() == {"embedded": 1, "skipped": 1}
        assert len(list(read_table(files(tables), "embedded"))) == 1
        tables.merge()
        assert files(tables).names == {
            "embedded.csv",
            "failures.csv",
            "skipped.csv",
        }

    def test_an_interrupted_run_stops_and_its_last_row_is_stored(self, tables: RunTables) -> None:
        progress_of(tables.run_id, 1).interrupt()
        with pytest.raises(RunStopped, match="interrupted"):
            tables.add(EMBEDDED)
        assert len(list(read_table(files(tables), "embedded"))) == 1

    def test_too_many_failures_stop_it_likewise(self, tables: RunTables) -> None:
        tables.add(FAILED)
        with pytest.raises(RunStopped, match="too many failures"):
            tables.add(FAILED)
        assert len(list(read_table(files(tables), "failures"))) == 2
