"""The findings of `verify` and their codes. Scripts match on the codes, which are never renamed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

PROBLEMS: dict[str, str] = {
    "unreadable": "the file cannot be read",
    "torn": "cut short, too long, or with a wrong checksum",
    "malformed": "not one example with both features; in packed files: columns are missing",
    "wrong_size": "another number of floats than in `_embedding_config.json` or in the others",
    "not_finite": "an embedding that holds NaN or infinity",
    "constant": "an embedding whose floats are all the same",
    "wrong_name": "the file is not named after the image in it",
    "doubled": "there is another record of the same image; the line names it",
    "sum_mismatch": "the file is not the one that `SHA256SUMS.txt` lists",
    "missing_file": "`SHA256SUMS.txt` lists it, but it does not exist",
    "missing_shard": "the names of the other shards show that one is missing",
    "missing": "an input that has no record and was not skipped on purpose",
    "bad_config": "`_embedding_config.json` cannot be read",
    "other_fingerprint": "the last run that wrote records had other settings than the config",
}

NOTES: dict[str, str] = {
    "same_embedding": "two images with the same floats, bit for bit: often the same image twice",
    "same_id": "two images of the same name in two folders",
    "unexpected": "a record that belongs to none of the inputs",
    "not_in_sums": "a file that `SHA256SUMS.txt` does not list",
    "no_config": "no `_embedding_config.json`: how the records were made is not known",
    "leftover": "a file that a run was writing when it was killed",
}

# Codes of the files that --repair removes; the main job then computes their records again.
REPAIRABLE = frozenset(
    {
        "torn", "malformed", "wrong_size", "not_finite", "constant", "wrong_name", "doubled",
        "sum_mismatch",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        code: a key of `PROBLEMS` or `NOTES`.
        path: path below the output; for a missing input, the input's path.
        detail: one line of text, or empty.
    """

    code: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.code} {self.path}{detail}"


@dataclass
class Findings:
    """All findings of one verification.

    Attributes:
        embeddings: number of checked embeddings.
        skipped: inputs that were skipped by the run.
        problems: findings with a code of `PROBLEMS`.
        notes: findings with a code of `NOTES`.
    """

    embeddings: int = 0
    skipped: int = 0
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def add(self, code: str, path: str, detail: str = "") -> None:
        """Adds a finding to the problems or to the notes, depending on its code."""
        (self.problems if code in PROBLEMS else self.notes).append(Finding(code, path, detail))

    def extend(self, findings: Iterable[Finding]) -> None:
        """Adds several findings."""
        for finding in findings:
            self.add(finding.code, finding.path, finding.detail)
