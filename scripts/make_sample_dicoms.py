"""Makes chest radiographs that have realistic pixels and headers, and show no real patient.

The picture is a synthetic thorax, the header follows the distribution of real ones, the patient
is ``SYNTHETIC^PHANTOM``. Every file depends only on the seed and its number, so that the same
command gives the same bytes, with the same versions of the libraries.

    python scripts/make_sample_dicoms.py --n 100 --output samples --size 1024x1024
"""

from __future__ import annotations

import argparse
import csv
import functools
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import cv2
import numpy as np
from phantom import encoders, headers
from phantom.findings import FINDINGS, Finding
from phantom.thorax import make_radiograph
from pydicom.dataset import Dataset, FileDataset

__all__ = [
    "Sample",
    "main",
    "make_dataset",
    "make_header",
    "make_radiograph",
    "sample",
    "write_samples",
]

TINY = (64, 64)
_STRUCTURAL = ("BitsStored", "PhotometricInterpretation", "PixelRepresentation", "ViewPosition")


class Sample(NamedTuple):
    """What one file of a folder is, known before it is made.

    Attributes:
        seed: The seed of this file alone, for ``make_dataset``.
        name: File name.
        finding: The disease drawn, or None.
        transfer_syntax: Short name.
    """

    seed: int
    name: str
    finding: Finding | None
    transfer_syntax: str


def make_header(
    seed: int, *, rows: int | None = None, columns: int | None = None, **overrides: Any
) -> Dataset:
    """The header of a radiograph, without pixels: quick, for looking at the distribution.

    Args:
        seed: Sets everything.
        rows: Height; by default that of the real film it is modelled on.
        columns: Width, likewise.
        **overrides: As for ``make_dataset``.

    Returns:
        A dataset without PixelData and file meta.
    """
    _, ds = _plan_and_header(seed, rows, columns, None, overrides)
    return ds


def make_dataset(
    seed: int,
    *,
    rows: int | None = None,
    columns: int | None = None,
    transfer_syntax: str | None = None,
    finding: Finding | None = None,
    **header_overrides: Any,
) -> FileDataset:
    """Makes one radiograph.

    Args:
        seed: Sets the person, the film and the header.
        rows: Height in pixels; by default that of the real film it is modelled on.
        columns: Width in pixels, likewise.
        transfer_syntax: Short name (see ``encoders.SYNTAXES``) or UID; explicit little endian
            unless told.
        finding: A disease to draw, written to ImageComments.
        **header_overrides: Attributes by DICOM keyword; None removes one. BitsStored,
            PhotometricInterpretation, PixelRepresentation and ViewPosition change the pixels to
            match; all others are written over the finished header as they are.

    Returns:
        The file, ready for ``save_as``.

    Raises:
        ValueError: The size, the finding, the transfer syntax or a structural override is
            impossible.
        encoders.NoEncoder: Nothing installed can write the transfer syntax.
    """
    name = encoders.syntax_name(transfer_syntax or "explicit")
    plan, ds = _plan_and_header(seed, rows, columns, name, header_overrides)
    radiograph = make_radiograph(
        seed, rows=ds.Rows, columns=ds.Columns, view=plan.view, finding=finding
    )
    ds.ImageComments = f"Synthetic phantom, not a patient; finding: {finding or 'none'}"
    file = encoders.add_pixels(ds, headers.stored_values(plan, radiograph), name)
    _override(file, header_overrides)
    return file


def sample(
    seed: int, index: int, *, transfer_syntax: str = "mixed", finding_rate: float = 0.5
) -> Sample:
    """What file number ``index`` of a folder is.

    Args:
        seed: The folder's seed.
        index: From 0.
        transfer_syntax: "mixed", a short name or a UID.
        finding_rate: Share of the files with a disease.
    """
    rng = np.random.default_rng([seed, index])
    own = int(rng.integers(2**32))
    name = encoders.draw_syntax(rng)
    if transfer_syntax != "mixed":
        name = encoders.syntax_name(transfer_syntax)
    sick, which = rng.random() < finding_rate, int(rng.integers(len(FINDINGS)))
    return Sample(own, f"SYN-{index + 1:06d}.dcm", FINDINGS[which] if sick else None, name)


def write_samples(
    folder: str | Path,
    n: int,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    transfer_syntax: str = "mixed",
    finding_rate: float = 0.5,
    workers: int = 1,
) -> list[Path]:
    """Writes ``n`` radiographs as SYN-000001.dcm and so on.

    Args:
        folder: Made if missing; files of the same names are replaced.
        n: How many.
        seed: Another seed, another folder; a longer folder begins with the same files.
        size: Rows and columns of all files; by default each has a real film's size.
        transfer_syntax: "mixed", or one for all by short name or UID.
        finding_rate: Share of the files with a disease; see ``sample``.
        workers: Processes.

    Returns:
        The paths, in order.

    Raises:
        ValueError: A value is out of range, or the transfer syntax is unknown.
        encoders.NoEncoder: Nothing installed can write the transfer syntax.
    """
    if n < 0 or workers < 1 or not 0 <= finding_rate <= 1 or seed < 0:
        raise ValueError("n and seed must be at least 0, workers at least 1, finding_rate in 0..1")
    if transfer_syntax != "mixed":
        encoders.syntax_name(transfer_syntax)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    kind = {"transfer_syntax": transfer_syntax, "finding_rate": finding_rate}
    write = functools.partial(_write_one, target, seed, size, kind)
    if workers == 1:
        return [write(index) for index in range(n)]
    # Spawned, not forked: the caller may have threads running.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        return list(pool.map(write, range(n), chunksize=max(1, min(16, n // (4 * workers)))))


def _write_one(
    folder: Path, seed: int, size: tuple[int, int] | None, kind: dict[str, Any], index: int
) -> Path:
    """Writes one file of a folder."""
    what = sample(seed, index, **kind)
    rows, columns = size or (None, None)
    file = make_dataset(
        what.seed, rows=rows, columns=columns, transfer_syntax=what.transfer_syntax,
        finding=what.finding, PatientID=f"SYN-{index + 1:06d}",
    )  # fmt: skip
    path = folder / what.name
    file.save_as(path, enforce_file_format=True)
    return path


def _plan_and_header(
    seed: int, rows: int | None, columns: int | None, syntax: str | None, overrides: dict[str, Any]
) -> tuple[headers.Plan, Dataset]:
    """Draws the plan and builds the header, structural overrides applied."""
    fixed = encoders.FIXED_BITS.get(syntax or "")
    bits = overrides.get("BitsStored") or fixed
    if fixed is not None and bits != fixed:
        raise ValueError(f"transfer syntax {syntax} stores {fixed} bits, not {bits}")
    photometric = overrides.get("PhotometricInterpretation")
    if bits is not None and not 2 <= bits <= 16:
        raise ValueError(f"BitsStored must be 2 to 16, not {bits}")
    if photometric not in (None, "MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"PhotometricInterpretation must be MONOCHROME1 or 2, not {photometric}")
    plan = headers.draw_plan(
        np.random.default_rng([seed, 100]),
        bits=bits,
        inverted=None if photometric is None else photometric == "MONOCHROME1",
        signed=overrides.get("PixelRepresentation") == 1,
        view=overrides.get("ViewPosition"),
    )
    height = plan.rows if rows is None else rows
    width = plan.columns if columns is None else columns
    if not (0 < height <= 65535 and 0 < width <= 65535):
        raise ValueError(f"rows and columns must be 1 to 65535, not {height} and {width}")
    ds = headers.make_header(plan, seed, height, width)
    _override(ds, overrides)
    return plan, ds


def _override(ds: Dataset, overrides: dict[str, Any]) -> None:
    """Writes the overrides that are not part of the plan."""
    for keyword, value in overrides.items():
        if keyword in _STRUCTURAL and value is not None:
            continue
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, value)


def _size(text: str) -> tuple[int, int]:
    """ROWSxCOLS as two numbers."""
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLS, such as 1024x1024")
    return int(rows), int(columns)


class _Parser(argparse.ArgumentParser):
    """Prints an error as one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with code 2."""
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a folder of radiographs according to the flags.

    Returns:
        0; invalid flags exit with code 2 and an error of one line.
    """
    parser = _Parser(description="Makes synthetic chest radiographs as DICOM.")
    add = parser.add_argument
    add("--n", type=int, default=10, help="how many files (default: 10)")
    add("--output", type=Path, required=True, help="folder to write to")
    add("--seed", type=int, default=0, help="same seed, same files (default: 0)")
    add("--size", type=_size, metavar="ROWSxCOLS", help="of all images (default: as real films)")
    add("--tiny", action="store_true", help="64x64 images, for throughput tests")
    names = ", ".join(encoders.WRITABLE)
    add("--transfer_syntax", default="mixed", help=f"mixed (default), a UID, or one of {names}")
    add("--finding_rate", type=float, default=0.5, help="share with a disease (default: 0.5)")
    add("--labels", type=Path, metavar="CSV", help="also write file, finding and syntax here")
    add("--workers", type=int, default=1, help="processes (default: 1)")
    args = parser.parse_args(argv)
    size = TINY if args.tiny else args.size
    kind = {"transfer_syntax": args.transfer_syntax, "finding_rate": args.finding_rate}
    try:
        if args.tiny and args.size:
            raise ValueError("--tiny and --size cannot be given together")
        paths = write_samples(
            args.output, args.n, seed=args.seed, size=size, workers=args.workers, **kind
        )
        if args.labels:
            rows = [sample(args.seed, index, **kind) for index in range(len(paths))]
            _write_labels(args.labels, rows)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(paths)} files in {args.output}")
    return 0


def _write_labels(path: Path, samples: Sequence[Sample]) -> None:
    """Writes what each file shows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "finding", "transfer_syntax"])
        table.writerows([s.name, s.finding or "", s.transfer_syntax] for s in samples)


if __name__ == "__main__":
    raise SystemExit(main())
