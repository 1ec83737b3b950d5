"""Where the graph's outcomes go: into shards of the run tables, and into the progress counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from cxr_embed import storage
from cxr_embed.outcomes import Outcome
from cxr_embed.runs import tables
from cxr_embed.runs.folder import RunFiles, run_folder
from cxr_embed.runs.progress import RunStopped, progress_of


@dataclass(frozen=True)
class RunTables:
    """The tables of one run, as every worker of it uses them; see `pipeline.graph.OutcomeTables`.

    Attributes:
        output_path: the run's output.
        run_id: the run's name.
        max_failures: see `Progress`. Each worker counts for itself; the launcher adds up.
        places: how to reach storage services.
    """

    output_path: str
    run_id: str
    max_failures: int = 0
    places: storage.Settings = field(default_factory=storage.settings)

    @property
    def folder(self) -> str:
        """The run's folder."""
        return run_folder(self.output_path, self.run_id)

    def open(self) -> None:
        """Prepares a worker; called once, before anything else."""
        storage.configure(self.places)

    def add(self, outcome: Outcome) -> None:
        """Adds a row.

        Raises:
            RunStopped: the run was interrupted, or too many images have failed.
            MachineFault: rows cannot be stored.
        """
        self._writer().add(outcome)
        progress = progress_of(self.run_id, self.max_failures)
        progress.add(outcome)
        if progress.is_interrupted or progress.has_too_many_failures:
            self.flush()
            raise RunStopped("interrupted" if progress.is_interrupted else "too many failures")

    def flush(self) -> None:
        """Stores all rows that this process was given."""
        self._writer().flush()

    def _writer(self) -> tables.ShardWriter:
        return tables.writer_of(self.output_path, self.run_id)

    def merge(self) -> None:
        """Makes the final tables."""
        tables.merge(files_of(self.folder))


def files_of(folder: str) -> RunFiles:
    """Returns the files of one run, listed now."""
    return RunFiles(folder, set(storage.list_paths(folder)))
