"""The one reader of CSV tables that a user gives: labels, MIMIC-CXR's own files, predictions."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxr_embed import storage
from cxr_embed.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


class CsvRows:
    """A CSV file, plain or gzip-compressed, local or in a bucket, with its header.

    Attributes:
        path: where it is.
        header: names of the columns.

    Raises:
        UsageError: it cannot be read, has no header, or has a column twice.
    """

    def __init__(self, path: str, flag: str) -> None:
        self.path = path
        text = _read_text(path, flag)
        self._reader = csv.reader(io.StringIO(text, newline=""))
        try:
            self.header = [name.strip() for name in next(self._reader, [])]
        except csv.Error as error:
            raise UsageError(f"{flag} {path} is not a CSV table: {error}") from error
        if not any(self.header):
            raise UsageError(f"{flag} {path} is empty")
        repeated = {name for name in self.header if self.header.count(name) > 1}
        if repeated:
            raise UsageError(f"{flag} {path} has the column {min(repeated)} twice")

    def index(self, column: str) -> int:
        """Returns a column's place; also where only case, blanks or underscores differ.

        Raises:
            UsageError: it is not there; the message names those that are.
        """
        return self.header.index(_name_of(column, self.header, self.path))

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yields line number and cells of each row that is not blank.

        Raises:
            UsageError: a row has more or fewer cells than the header, or is not CSV.
        """
        try:
            for row in self._reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(self.header):
                    raise UsageError(
                        f"{self.path} line {self._reader.line_num} has {len(row)} cells, its "
                        f"header has {len(self.header)}"
                    )
                yield self._reader.line_num, row
        except csv.Error as error:
            raise UsageError(f"{self.path} line {self._reader.line_num}: {error}") from error


@dataclass(frozen=True)
class CsvTable:
    """A whole table as text.

    Attributes:
        path: where it is.
        columns: for each column its cells, without blanks around them.
        lines: the file's line of each row.
    """

    path: str
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def name_of(self, column: str) -> str:
        """Returns a column's name in the file; also where only case, blanks or underscores differ.

        Raises:
            UsageError: it is not there; the message names those that are.
        """
        return _name_of(column, list(self.columns), self.path)

    def column(self, name: str) -> list[str]:
        """Returns the cells of the column that `name_of` finds."""
        return self.columns[self.name_of(name)]


def read_csv_table(path: str, flag: str) -> CsvTable:
    """Reads a whole table.

    Args:
        path: local or in a bucket, plain or gzip-compressed.
        flag: what the user named it with, for messages.

    Raises:
        UsageError: it cannot be read, or has no header or no rows.
    """
    rows = CsvRows(path, flag)
    lines, cells = [], []
    for line, row in rows:
        lines.append(line)
        cells.append([cell.strip() for cell in row])
    if not cells:
        raise UsageError(f"{flag} {path} has a header and no rows")
    by_column = map(list, zip(*cells, strict=True))
    columns = dict(zip(rows.header, by_column, strict=True))
    return CsvTable(path, columns, lines)


def typed_frame(table: CsvTable) -> pd.DataFrame:
    """Returns a table as a data frame whose types pandas has guessed, column by column.

    A column with leading zeros, as ids have them, stays text.

    Raises:
        UsageError: pandas is not installed.
    """
    pandas = import_pandas()
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL)
    writer.writerow(table.columns)
    writer.writerows(zip(*table.columns.values(), strict=True))
    text.seek(0)
    frame = pandas.read_csv(text, skip_blank_lines=False)
    for name, cells in table.columns.items():
        if any(cell[:1] == "0" and cell[1:].isdigit() for cell in cells):
            frame[name] = cells
    return frame


def frame_texts(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the cells of each column of a data frame as text, empty where there is none."""
    columns = {}
    for name in frame.columns:
        column = frame[name].astype(object).where(frame[name].notna(), "")
        columns[str(name)] = [str(value) for value in column]
    return columns


def import_pandas() -> Any:
    """Returns pandas.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("pandas is not installed: pip install 'cxr-embed[explore]'") from error
    return pandas


def _read_text(path: str, flag: str) -> str:
    try:
        data = storage.read_bytes(path)
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{flag} {path} does not exist") from error
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag} {path} cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag} {path} is not UTF-8 text") from error


def _name_of(column: str, names: Sequence[str], path: str) -> str:
    if column in names:
        return column
    alike = [name for name in names if _plain(name) == _plain(column)]
    if len(alike) == 1:
        return alike[0]
    raise UsageError(f"{path} has no column {column}; its columns are {', '.join(names)}")


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "")
