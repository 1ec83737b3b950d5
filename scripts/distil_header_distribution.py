"""Boils a table of radiograph headers down to a few weighted archetypes.

Real headers are joint: a maker that stores MONOCHROME1 with 15 bits also writes a certain window,
a certain LUT and certain sizes. So rows are grouped into archetypes by what decides how an image
is rendered, and inside each one the films (view, orientation, size, spacing), windows and LUTs
are kept as small weighted lists. No row of the table survives as such.

    python scripts/distil_header_distribution.py headers.csv > scripts/phantom/headers.json
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

_KEY = ("Modality", "SOP Class UID", "Photometric Interpretation", "Bits Stored",
        "Presentation LUT Shape", "Rescale Type")  # fmt: skip
# Columns that hold one value throughout nearly every archetype, by DICOM keyword.
_CONSTANT = (
    "Image Type", "Conversion Type", "Specific Character Set", "Body Part Examined",
    "Image Laterality", "Bits Allocated", "High Bit", "Pixel Representation",
    "Smallest Image Pixel Value", "Largest Image Pixel Value", "Pixel Aspect Ratio",
    "Window Center & Width Explanation", "LUT Explanation", "Rescale Intercept", "Rescale Slope",
    "Pixel Intensity Relationship", "Pixel Intensity Relationship Sign",
    "Presentation Intent Type", "Lossy Image Compression", "Burned In Annotation",
    "Quality Control Image", "Polarity", "Cassette Size", "Grid", "Filter Type", "Detector Type",
)  # fmt: skip
_FEWEST = 2  # Rows that make an archetype; what is rarer is left out.
_FILM_PIXELS = 300  # Sizes closer than this count as one film.
_MOST_FILMS, _MOST_CURVES = 8, 7

Row = dict[str, str]


def distil(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Groups header rows into archetypes.

    Args:
        rows: One mapping an image, by DICOM attribute name; lists written as Python lists.

    Returns:
        Archetypes, most frequent first: ``count``; ``header``, constant attributes by keyword;
        ``films``, lists of count, view, orientation, rows, columns, pixel spacing and imager
        pixel spacing; ``windows``, lists of count, centres and widths as written; ``luts``,
        lists of count, entries and first value mapped.
    """
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        windows = len(_values(row["Window Center"]))
        key = (*(row[name] for name in _KEY), bool(row["LUT Descriptor"]), windows)
        groups.setdefault(key, []).append(row)
    kept = sorted((g for g in groups.values() if len(g) >= _FEWEST), key=len, reverse=True)
    return [_archetype(group) for group in kept]


def _archetype(rows: Sequence[Row]) -> dict[str, Any]:
    """One archetype from rows that render alike."""
    header: dict[str, Any] = {}
    for name in (*_KEY, *_CONSTANT):
        value, count = Counter(row[name] for row in rows).most_common(1)[0]
        if value and count > len(rows) / 2:
            header[_keyword(name)] = _written(value)
    out: dict[str, Any] = {"count": len(rows), "header": header, "films": _films(rows)}
    windows = [(row["Window Center"], row["Window Width"]) for row in rows if row["Window Center"]]
    if windows:
        picked = _spread(windows, lambda w: (float(_values(w[1])[0]), w))
        out["windows"] = [[n, _values(c), _values(w)] for n, (c, w) in picked]
    luts = [
        tuple(map(int, _values(row["LUT Descriptor"])))[:2] for row in rows if row["LUT Descriptor"]
    ]
    if luts:
        out["luts"] = [[n, *lut] for n, lut in _spread(luts, lambda lut: lut)]
    return out


def _films(rows: Sequence[Row]) -> list[list[Any]]:
    """The commonest kinds of film; those beyond the first few join the nearest kept one."""
    cells: dict[tuple[str, str, int, int], Counter[tuple[str, ...]]] = {}
    for row in rows:
        exact = (row["View Position"], row["Patient Orientation"], row["Rows"], row["Columns"],
                 row["Pixel Spacing"], row["Imager Pixel Spacing"])  # fmt: skip
        cell = (exact[0], exact[1], int(exact[2]) // _FILM_PIXELS, int(exact[3]) // _FILM_PIXELS)
        cells.setdefault(cell, Counter())[exact] += 1
    ranked = sorted(cells, key=lambda cell: -cells[cell].total())
    # Every view keeps at least its commonest film.
    first = list({cell[:2]: cell for cell in reversed(ranked)}.values())
    chosen = sorted({*first, *ranked[:_MOST_FILMS]}, key=ranked.index)
    counts = {cell: cells[cell].total() for cell in chosen}
    for cell in ranked:
        if cell not in counts:
            same = [c for c in chosen if c[:2] == cell[:2]]
            nearest = min(same, key=lambda c: abs(c[2] - cell[2]) + abs(c[3] - cell[3]))
            counts[nearest] += cells[cell].total()
    films = []
    for cell in chosen:
        view, way, height, width, *spacings = cells[cell].most_common(1)[0][0]
        way_letters = "".join(_values(way))
        one = [(_values(s) or [""])[0] for s in spacings]
        films.append([counts[cell], view, way_letters, int(height), int(width), *one])
    return films


def _spread(items: Sequence[Any], order: Callable[[Any], Any]) -> list[tuple[int, Any]]:
    """A few of the items with weights: the commonest ones, or evenly spread quantiles."""
    common = Counter(items).most_common()
    if len(common) <= _MOST_CURVES or common[0][1] > len(items) / 2:
        return [(count, item) for item, count in common[:_MOST_CURVES]]
    ranked = sorted(items, key=order)
    at = [int((k + 0.5) * len(ranked) / _MOST_CURVES) for k in range(_MOST_CURVES)]
    return [(1, ranked[k]) for k in at]


def _values(text: str) -> list[str]:
    """The values of a cell that is empty, a single value or a written-out list."""
    if not text:
        return []
    return [str(v) for v in ast.literal_eval(text)] if text.startswith("[") else [text]


def _written(text: str) -> str:
    """A cell as DICOM writes it: several values joined by backslashes."""
    return "\\".join(_values(text))


def _keyword(name: str) -> str:
    """The DICOM keyword of an attribute name."""
    return re.sub(r"[^A-Za-z]", "", name.replace("&", ""))


def main(argv: list[str] | None = None) -> int:
    """Reads a CSV (plain or gzipped) and prints the archetypes as JSON, one a line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("table", type=Path, help="CSV with one row an image")
    table: Path = parser.parse_args(argv).table
    raw = table.read_bytes()
    text = (gzip.decompress(raw) if table.suffix == ".gz" else raw).decode()
    archetypes = distil(csv.DictReader(text.splitlines()))
    lines = ",\n".join(json.dumps(a, separators=(",", ":")) for a in archetypes)
    sys.stdout.write(f"[\n{lines}\n]\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
