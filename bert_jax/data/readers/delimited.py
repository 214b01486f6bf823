"""Streams the rows of csv and tsv files, and finds out what separates their columns.

A comma separates the columns of .csv and a tab those of .tsv, if the header and the first rows agree on the number of
columns. Otherwise a semicolon, a tab, a bar or a comma does if they agree on two columns or more: in many languages a
comma is the decimal sign, and spreadsheets write semicolons. Excel's first line `sep=;` decides.

Fields may be quoted, as in csv, except in a .tsv file with tabs.
"""

import csv
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from bert_jax.data.readers.files import File, format_of, open_text
from bert_jax.data.readers.report import ReadReport
from bert_jax.messages import counted

LONGEST_FIELD = 1 << 28  # characters
SEPARATORS = (";", "\t", "|", ",")
_OWN = {".csv": ",", ".tsv": "\t"}
_SAMPLE = 20  # lines
_LEAST_ROWS = 3  # that decide about a file without a header

Row = dict[str, Any]


class Dialect(NamedTuple):
    """What separates columns, whether fields may be quoted, and how many lines are before the first row."""

    separator: str
    quoted: bool
    lines_before: int = 0


def read_delimited(
    path: File, columns: Sequence[str] | None, encoding: str, header: bool, report: ReadReport | None
) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a csv or tsv file; see `tables.read_rows`."""
    with open_text(path, encoding, newline="") as file:
        sample = list(itertools.islice(file, _SAMPLE))
        dialect = _find_dialect(format_of(path), sample, header)
        lines = _split_lines(path, itertools.chain(sample, file), dialect)
        first = next((one for one in lines if one[1]), (1, []))
        names = [name.strip() for name in first[1]] if header else [str(number + 1) for number in range(len(first[1]))]
        if columns is not None:
            require_columns(path, columns, names)
        columns = names if columns is None else columns
        places = [(name, names.index(name)) for name in columns]
        if not header and first[1]:
            yield f"{path}:{first[0]}", {name: first[1][place] for name, place in places}
        blank: list[int] = []
        width = len(names)
        for line, fields in lines:
            if not fields:
                blank.append(line)
                continue
            if blank:
                if columns and width == 1:  # in a table of one column a blank line is an empty field
                    yield from ((f"{path}:{number}", dict.fromkeys(columns, "")) for number in blank)
                blank.clear()
            if len(fields) == width:
                yield f"{path}:{line}", {name: fields[place] for name, place in places}
                continue
            columns_of_first = f"the {'header' if header else 'first row'} has {width}"
            if report is None:
                raise ValueError(f"{path}:{line}: {counted(len(fields), 'column')}, {columns_of_first}")
            report.rows += 1
            report.skip(f"rows with another number of columns; {columns_of_first}", f"{path}:{line}")


def require_columns(where: object, wanted: Iterable[str], found: Collection[str]) -> None:
    """Raises a ValueError for the first column that is missing or has the name of another one."""
    names = list(found)
    for name in wanted:
        if name not in found:
            there = (
                f"but one column called {names[0]!r}"
                if is_unseparated(names)
                else f"among {', '.join(names) or 'none'}"
            )
            raise ValueError(f"{where}: no column {name!r} {there}")
        if names.count(name) > 1:
            raise ValueError(f"{where}: {names.count(name)} columns are called {name!r}")


def is_unseparated(names: Sequence[str]) -> bool:
    """Returns whether the only column has a name such as `text;label`."""
    return len(names) == 1 and any(separator in names[0] for separator in SEPARATORS)


def other_separator(path: File, encoding: str, header: bool) -> str | None:
    """Returns what separates the columns of a file if it is not what its suffix says; None if it is."""
    with open_text(path, encoding, newline="") as file:
        dialect = _find_dialect(format_of(path), list(itertools.islice(file, _SAMPLE)), header)
    return None if dialect.separator == _OWN[format_of(path)] else dialect.separator


def _find_dialect(format: str, sample: Sequence[str], header: bool) -> Dialect:
    own = Dialect(_OWN[format], quoted=format == ".csv")
    if sample and (stated := re.fullmatch(r"sep=(.)\s*", sample[0], re.IGNORECASE)):
        return Dialect(stated[1], quoted=True, lines_before=1)
    widths = _widths(sample, own)
    if len(set(widths)) == 1 and (widths[0] > 1 or (not header and len(widths) < _LEAST_ROWS)):
        return own
    found = own
    most = 1
    for separator in SEPARATORS:
        dialect = Dialect(separator, quoted=True)
        widths = _widths(sample, dialect)
        if separator != own.separator and len(set(widths)) == 1 and widths[0] > most:
            found = dialect
            most = widths[0]
    return found


def _widths(sample: Sequence[str], dialect: Dialect) -> list[int]:
    """Returns the numbers of fields of the first rows, without the last row if the sample ends inside of it."""
    try:
        widths = [len(fields) for fields in _reader(sample, dialect, strict=False) if fields]
    except csv.Error:
        return []
    return widths[:-1] if len(sample) == _SAMPLE else widths


def _reader(lines: Iterable[str], dialect: Dialect, *, strict: bool) -> Any:
    csv.field_size_limit(LONGEST_FIELD)
    quoting = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=dialect.separator, quoting=quoting, strict=strict)


def _split_lines(path: File, lines: Iterator[str], dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the fields of each row; a blank line has no fields."""
    rows = _reader(itertools.islice(lines, dialect.lines_before, None), dialect, strict=True)
    line = dialect.lines_before + 1
    try:
        for fields in rows:
            yield line, fields
            line = dialect.lines_before + rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{line}: {error}") from None
