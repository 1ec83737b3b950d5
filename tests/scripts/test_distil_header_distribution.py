"""How a table of headers becomes archetypes."""

from __future__ import annotations

import csv
import json

import distil_header_distribution as distiller
import pytest
from phantom import headers

COLUMNS = (
    *distiller._KEY, *distiller._CONSTANT, "View Position", "Patient Orientation", "Rows",
    "Columns", "Pixel Spacing", "Imager Pixel Spacing", "Window Center", "Window Width",
    "LUT Descriptor",
)  # fmt: skip


def _row(**given: str) -> dict[str, str]:
    plain = {
        "Modality": "CR", "Photometric Interpretation": "MONOCHROME2", "Bits Stored": "12",
        "Rows": "2991", "Columns": "2992", "Window Center": "1636", "Window Width": "2712",
    }  # fmt: skip
    return dict.fromkeys(COLUMNS, "") | plain | {k.replace("_", " "): v for k, v in given.items()}


def test_rows_that_render_alike_share_an_archetype() -> None:
    rows = [_row() for _ in range(3)]
    lut = {"LUT_Descriptor": "['2329', '1426', '16']", "Window_Center": "", "Window_Width": ""}
    rows += [_row(Photometric_Interpretation="MONOCHROME1", **lut) for _ in range(2)]
    rows += [_row(Bits_Stored="10")]  # On its own: too rare to keep.

    plain, inverted = distiller.distil(rows)

    assert (plain["count"], inverted["count"]) == (3, 2)
    assert plain["header"]["BitsStored"] == "12"
    assert plain["windows"] == [[3, ["1636"], ["2712"]]]
    assert plain["films"] == [[3, "", "", 2991, 2992, "", ""]]
    assert inverted["luts"] == [[2, 2329, 1426]]
    assert "windows" not in inverted


def test_rare_films_join_the_nearest_and_no_view_is_lost() -> None:
    rows = [_row(Rows=str(1000 + 300 * k), View_Position="PA") for k in range(12)] * 2
    rows += [_row(View_Position="RL")]

    films = distiller.distil(rows)[0]["films"]

    assert sum(film[0] for film in films) == 25
    assert [film[0] for film in films if film[1] == "RL"] == [1]
    assert len(films) <= 9


@pytest.mark.parametrize("archetype", headers.archetypes(), ids=lambda kind: str(kind["count"]))
def test_the_committed_archetypes_hold_together(archetype) -> None:
    header = archetype["header"]

    assert sum(film[0] for film in archetype["films"]) == archetype["count"]
    assert int(header["HighBit"]) == int(header["BitsStored"]) - 1
    for _, entries, first in archetype.get("luts", []):
        assert first + entries <= 2 ** int(header["BitsStored"])
    for _, centres, widths in archetype.get("windows", []):
        assert len(centres) == len(widths)


def test_command_line_prints_json(tmp_path, capsys) -> None:
    table = tmp_path / "headers.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows([_row(), _row()])

    assert distiller.main([str(table)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["count"] == 2
