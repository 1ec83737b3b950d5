"""`cxr-embed verify`: is everything there, whole and sane?"""

from __future__ import annotations

import time
from collections import Counter

from cxr_embed.cli import flags as cli_flags
from cxr_embed.datasets import verify as verifying
from cxr_embed.datasets.findings import NOTES, PROBLEMS, Findings
from cxr_embed.embeddings.opening import place_of_embeddings
from cxr_embed.errors import UsageError

USAGE = """\
Checks every embedding of an output or of a packed data set: framing, checksums, size, values,
duplicates, SHA256SUMS.txt, and with --inputs whether each image has its record. It prints one line
for each problem: its code, the file, and what is wrong.

  cxr-embed verify --input_path OUT [--inputs DIR_OR_LIST] [--repair]

Exit status: 0 nothing wrong; 1 problems found; 2 wrong flags or input, or no embeddings."""

_NOTES_SHOWN = 5


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.text(
        "input_path",
        "an output of the main job, a packed data set, or one file; local, in a bucket or archive",
    )
    values.text(
        "inputs",
        "the run's images, to find missing records: its --input_path, or a .txt list of paths",
    )
    values.text("dicomweb_query", "the run's --dicomweb_query, if --inputs is a DICOMweb store")
    values.switch("search_archives", "also look into archives below --inputs, if the run did")
    values.switch(
        "repair",
        "remove damaged records and shards; then run the main job or pack again to make them anew",
    )
    values.number(
        "verbosity", 0, "-1 shows problems only, 0 also notes, summary and progress", least=-3
    )
    return values


def main(arguments: list[str]) -> int:
    """Verifies; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    values.require("input_path")
    if values.dicomweb_query and not values.inputs:
        raise UsageError("--dicomweb_query needs --inputs, the DICOMweb store")
    if values.search_archives and not values.inputs:
        raise UsageError("--search_archives needs --inputs")
    place = place_of_embeddings(values.input_path)
    if values.repair and (why := verifying.why_not_repairable(place)):
        raise UsageError(f"--repair: {why}")
    from cxr_embed.cli.progress import counting

    quiet = values.verbosity < 0
    clock = time.perf_counter()
    with counting("verifying", "files", quiet=quiet) as start:
        found = verifying.verify(
            place, values.inputs, start, values.dicomweb_query,
            search_archives=values.search_archives,
        )  # fmt: skip
    seconds = time.perf_counter() - clock
    for problem in found.problems:
        print(_one_line(problem))
    if not quiet:
        _print_summary(found, seconds)
    if values.repair:
        removed = verifying.repair(place, found)
        print(f"removed     {len(removed)}; the main job or pack makes them again")
    return 1 if found.problems else 0


def _print_summary(found: Findings, seconds: float) -> None:
    for code, number in Counter(note.code for note in found.notes).items():
        notes = [note for note in found.notes if note.code == code]
        for note in notes[:_NOTES_SHOWN]:
            print(f"note {_one_line(note)}")
        if number > _NOTES_SHOWN:
            print(f"note {code}: {number - _NOTES_SHOWN} more")
    rate = found.embeddings / seconds if seconds else 0
    print(f"embeddings  {found.embeddings}, {rate:.0f}/s over {seconds:.1f} s")
    if found.skipped:
        print(f"skipped     {found.skipped} inputs have no record on purpose")
    print(f"problems    {len(found.problems)}")
    for code, number in Counter(problem.code for problem in found.problems).items():
        print(f"  {number} {code}: {PROBLEMS[code]}")
    for code, number in Counter(note.code for note in found.notes).items():
        print(f"  {number} {code} (note): {NOTES[code]}")


def _one_line(finding: object) -> str:
    # A path may hold anything, a line break included.
    return str(finding).replace("\n", "\\n").encode("utf-8", "backslashreplace").decode()
