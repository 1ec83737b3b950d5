"""`--watch`: lists the input again and again and embeds what is new, until a signal ends it."""

from __future__ import annotations

import functools
import sys
import threading
from collections import ChainMap, Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cxr_embed import storage
from cxr_embed.cli import stopping, terminal
from cxr_embed.cli.progress import watching
from cxr_embed.elements import RUNS_FOLDER, ImageRef
from cxr_embed.errors import PlaceLost, Unreachable, UsageError
from cxr_embed.models.sharing import shared
from cxr_embed.runs.arrivals import Arrivals
from cxr_embed.runs.execute import execute_run, worker_settings
from cxr_embed.runs.folder import files_of
from cxr_embed.runs.plan import Job, RunPlan, count_of_images, plan_run
from cxr_embed.runs.result import Result
from cxr_embed.runs.tables import read_table
from cxr_embed.storage.search_archives import ArchiveSearch, ImagesIn

# Lists all images of the input.
Find = Callable[[ArchiveSearch], list[ImageRef]]


@dataclass
class _Total:
    """What all rounds have done for one output.

    Attributes:
        output: the output's folder.
        name: its name, if the run has several.
        skipped: reasons by path.
        failed: reasons by path, of images that have not been embedded since.
        folders: the runs' folders.
    """

    output: str
    name: str
    embedded: int = 0
    already_there: int = 0
    not_attempted: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def add(self, refs: Sequence[ImageRef], already_there: int, result: Result | None) -> None:
        """Adds one round.

        Args:
            refs: its images.
            already_there: how many of them had a record.
            result: the result of its run, if there was one.
        """
        self.already_there += already_there
        for ref in refs:
            self.skipped.pop(ref.path, None)
            self.failed.pop(ref.path, None)
        if result is None:
            return
        self.embedded += result.counts["embedded"]
        self.not_attempted = result.counts["not_attempted"]
        self.seconds += result.seconds
        self.folders.append(result.folder)
        self.skipped |= _reasons(result, "skipped") if result.skipped else {}
        self.failed |= _reasons(result, "failures") if result.failed else {}

    def as_result(self) -> Result:
        """Returns all rounds as if they had been one run."""
        counts = {
            "embedded": self.embedded,
            "already_there": self.already_there,
            "not_attempted": self.not_attempted,
        }
        runs = storage.join(self.output, RUNS_FOLDER, "*")
        return Result(
            self.folders[0] if len(self.folders) == 1 else runs, counts,
            dict(Counter(self.skipped.values())), dict(Counter(self.failed.values())), self.seconds,
        )  # fmt: skip


def _reasons(result: Result, table: str) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in read_table(files_of(result.folder), table)}


class Watch:
    """Embeds in rounds what an input holds.

    Args:
        find: lists the input.
        make_job: returns the job without images; it is called after the first listing.
        finished: returns what an archive holds that need not be opened.
        seconds: between two rounds.
        log: logs one line for the user.
    """

    def __init__(
        self,
        find: Find,
        make_job: Callable[[], Job],
        finished: ImagesIn,
        seconds: float,
        log: terminal.Log,
    ) -> None:
        self._find, self._make_job, self._log = find, functools.cache(make_job), log
        self._seconds = seconds
        self._arrivals = Arrivals(seconds, finished, log)
        self._has_run = False
        self._totals: list[_Total] = []
        self._lost: set[str] = set()  # images of the last round, if its place was lost
        self._problem = ""

    def until_stopped(self, skip_errors: bool) -> int:
        """Does rounds until a signal, and prints what they have done; returns the exit status."""
        ended: list[Result] = []
        with stopping.wait_interruptible() as stop:
            while not stop.is_set() and not ended:
                try:
                    ended = self._round(stop)
                    if self._problem:
                        self._log("reached again")
                    self._problem = ""
                except (Unreachable, PlaceLost) as error:
                    if not self._totals:  # nothing has worked yet
                        raise
                    self._tell(error)
                except UsageError:
                    self._summarize()
                    raise
                if not ended:
                    stop.wait(self._seconds)
        self._summarize()
        return self._status(ended, skip_errors)

    def _tell(self, error: Exception) -> None:
        if str(error) != self._problem:  # a long outage is one line
            self._problem = str(error)
            self._log(f"warning: {error}; trying again every {self._seconds:g} s")

    def _round(self, stop: threading.Event) -> list[Result]:
        """Lists the input once and embeds what is new.

        Returns:
            The results if they end the rounds; empty otherwise.

        Raises:
            Unreachable: the input or the output cannot be listed.
            PlaceLost: a place cannot be reached any more.
            UsageError: see `plan_run`; or the model cannot be used.
        """
        search = self._arrivals.begin_listing()
        refs = self._find(search)
        new = self._arrivals.new(refs)
        if self._totals and not new and not search.listed:
            self._arrivals.conclude([], {})
            return []
        if not self._totals:
            found = count_of_images(len(refs))
            self._log(f"found {found}; looking again every {self._seconds:g} s until Ctrl-C")
        job = replace(self._make_job(), refs=new, archives=search.listed)
        plan = plan_run(job, self._log if not self._has_run else self._log.warnings)
        if stop.is_set():
            return []
        results: list[Result | None] = [None] * len(plan.outputs)
        if plan.records or search.listed or any(each.checked for each in plan.outputs):
            results = list(self._execute(plan, stop))
        elif not self._totals:
            shared(worker_settings(plan))  # an unusable model is found before an image arrives
        return self._conclude(plan, results)

    def _execute(self, plan: RunPlan, stop: threading.Event) -> list[Result]:
        log = self._log if not self._has_run else self._log.warnings
        unit = "embeddings" if plan.names else "images"
        show = watching("embedding", unit, quiet=self._log.is_quiet, transient=self._has_run)
        with stopping.run_interruptible(plan):
            try:
                results = execute_run(plan, log, show)
            except PlaceLost:
                self._lost = {ref.path for ref in plan.job.refs}
                raise
        self._has_run = True
        for result in results:
            if result.ended == "interrupted":
                stop.set()
                if not result.counts["not_attempted"]:  # by then all was done
                    result.ended, result.error = "done", None
        return results

    def _conclude(self, plan: RunPlan, results: Sequence[Result | None]) -> list[Result]:
        """Adds a round to the totals; returns its results if they end the rounds."""
        new = plan.job.refs
        totals = self._totals or [_Total(p.job.output_path, p.output) for p in plan.outputs]
        for total, part, result in zip(totals, plan.outputs, results, strict=True):
            todo = {ref.path for ref in part.todo} | self._lost
            total.add(new, sum(ref.path not in todo for ref in new), result)
        ran = [result for result in results if result is not None]
        self._log_round(ran)
        self._lost = set()
        ends = [r for r in ran if r.ended != "done" or r.counts["not_attempted"]]
        if not ends:
            outcomes = ChainMap(*(each for t in totals for each in (t.failed, t.skipped)))
            paths = [ref.path for ref in new]
            without = {path: outcomes[path] for path in paths if path in outcomes}
            self._arrivals.conclude(new, without)
        has_worked = bool(self._totals) or not ends or any(r.counts["embedded"] for r in ran)
        self._totals = totals
        error = ends[0].error if ends else None
        if has_worked and isinstance(error, PlaceLost):
            self._lost = {ref.path for ref in new}
            raise error
        return ends or self._too_many(ran)

    def _too_many(self, ran: list[Result]) -> list[Result]:
        """Returns the results if all rounds together had more failures than are allowed."""
        failed = max(len(total.failed) for total in self._totals)
        if ran and 0 < self._make_job().max_failures < failed:
            for result in ran:
                result.ended = "max_failures"
            return ran
        return []

    def _log_round(self, ran: Sequence[Result]) -> None:
        counts = Counter[str]()
        for result in ran:
            counts["embedded"] += result.counts["embedded"]
            counts["skipped"] += sum(result.skipped.values())
            counts["failed"] += sum(result.failed.values())
        if counts.total():
            line = ", ".join(f"{counts[name]} {name}" for name in ("embedded", "skipped", "failed"))
            self._log(f"{line} in {ran[0].seconds:.1f} s: {ran[0].folder}")

    def _summarize(self) -> None:
        for total in self._totals:
            terminal.print_summary(total.as_result(), total.name)
        for archive in sorted(self._arrivals.unreadable):
            print(f"{archive} could not be read and was left out", file=sys.stderr)

    def _status(self, ended: Sequence[Result], skip_errors: bool) -> int:
        results = ended or [total.as_result() for total in self._totals]
        status = max((terminal.status_of(r, skip_errors) for r in results), default=0)
        return max(status, bool(self._arrivals.unreadable) and not skip_errors)
