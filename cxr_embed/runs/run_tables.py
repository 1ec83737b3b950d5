"""Writes each image's outcome to the run tables, `failures.csv` for one, and counts it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cxr_embed import storage
from cxr_embed.outcomes import Outcome
from cxr_embed.runs import tables
from cxr_embed.runs.folder import files_of, run_folder
from cxr_embed.runs.progress import RunStopped, progress_of


@dataclass(frozen=True)
class RunTables:
    """The tables of one run, used by each of its workers; see `pipeline.graph.OutcomeTables`.

    Attributes:
        output_path: the run's output, or the folder of its several outputs.
        run_id: the run's name.
        max_failures: see `Progress`. Each worker has its own count; the launcher has the total.
        places: settings of the storage services.
        outputs: names of several outputs; empty for a single one.
    """

    output_path: str
    run_id: str
    max_failures: int = 0
    places: storage.Settings = field(default_factory=storage.settings)
    outputs: tuple[str, ...] = ()

    def open(self) -> None:
        """Prepares a worker; called once, before all other methods."""
        storage.configure(self.places)

    def add(self, outcome: Outcome) -> None:
        """Adds a row to the table of each output that the outcome decides on.

        Raises:
            RunStopped: the run was interrupted, or too many images have failed.
            MachineFault: rows cannot be stored.
        """
        paths = self._paths(outcome.outputs)
        for path in paths:
            self._writer(path).add(outcome)
        progress = progress_of(self.run_id, self.max_failures)
        progress.add(outcome, len(paths))
        if progress.is_interrupted or progress.has_too_many_failures:
            self.flush()
            raise RunStopped("interrupted" if progress.is_interrupted else "too many failures")

    def flush(self) -> None:
        """Stores all rows that were added in this process."""
        for path in self._paths():
            self._writer(path).flush()

    def merge(self) -> None:
        """Merges the shards into the final tables."""
        for path in self._paths():
            tables.merge(files_of(run_folder(path, self.run_id)))

    def _paths(self, outputs: tuple[str, ...] = ()) -> list[str]:
        """Returns the folders of some outputs, by default of all."""
        names = outputs or self.outputs
        return [storage.join(self.output_path, n) for n in names] if names else [self.output_path]

    def _writer(self, path: str) -> tables.ShardWriter:
        return tables.writer_of(path, self.run_id)
