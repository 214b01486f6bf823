"""Rows of tables: csv, tsv, JSON and parquet files, and datasets from the Hugging Face hub, read as streams.

Mistakes in a file are told in one line, with the file and the line in it. That is why files are not left to `datasets`,
which reads whole blocks and cannot say. Nothing in a source is ever run.
"""

from __future__ import annotations

import codecs
import csv
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import datasets
import pyarrow as pa
from pyarrow import parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

LONGEST_FIELD = 1 << 28  # characters
ROWS_AT_ONCE = 64  # each may hold a whole book

Origin = Path | datasets.Dataset
Row = dict[str, Any]


def read_rows(
    origin: Origin,
    columns: Sequence[str] | None = None,
    *,
    encoding: str = "utf-8-sig",
    header: bool = True,
    skipped: list[str] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a file or a dataset, each after its place.

    The name's end tells the kind: .csv; .tsv, in which quotes mean nothing; .jsonl or .ndjson, an object a line; .json,
    the same or one array of objects; .parquet. Columns of class labels hold the names of the classes, and None where a
    dataset says -1: no label.

    Args:
        columns: those to read; every one where None.
        header: whether the first line of a csv or tsv names its columns. Where it does not they are "1", "2" and so on.
        skipped: takes the messages about rows of a csv or tsv that have too many or too few fields, and these rows are
            left out. Where None, such a row is an error.

    Returns:
        Pairs of a place, as in `train.tsv:17` (a line of a text, a row of anything else, both from 1), and the values.

    Raises:
        ValueError: a column that is missing, a row that cannot be read, a kind of file that has no rows.
    """
    if isinstance(origin, datasets.Dataset):
        return _read_dataset(origin, columns)
    match origin.suffix.lower():
        case ".csv" | ".tsv":
            return _read_delimited(origin, columns, encoding, header, skipped)
        case ".json" | ".jsonl" | ".ndjson":
            return _read_json(origin, columns, encoding)
        case ".parquet":
            return _read_parquet(origin, columns)
    raise ValueError(f"{origin}: rows are read from {', '.join(sorted(TABLES))}, not from {origin.suffix or 'others'}")


TABLES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"})


def is_delimited(origin: Origin) -> bool:
    """Says whether rows are lines of fields, the first of which may be a header."""
    return not isinstance(origin, datasets.Dataset) and origin.suffix.lower() in {".csv", ".tsv"}


def column_names(origin: Origin, *, encoding: str = "utf-8-sig", header: bool = True) -> list[str]:
    """The names of the columns, which are those of the first row.

    Raises:
        ValueError: there is no row.
    """
    for _, row in read_rows(origin, encoding=encoding, header=header, skipped=[]):
        return list(row)
    raise no_rows(name_of(origin))


def class_names(origin: Origin, column: str) -> tuple[str, ...] | None:
    """The names of the classes in a column in the order that a dataset declares them, or None where it does not."""
    if isinstance(origin, datasets.Dataset):
        features = origin.features
    elif origin.suffix.lower() == ".parquet":
        features = _declared_features(_open_parquet(origin).schema_arrow)
    else:
        return None
    feature = features.get(column)
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def text_of(row: Row, column: str, where: str) -> str | None:
    """The text in a column; None where there is none.

    Raises:
        ValueError: it holds something else.
    """
    text = row[column]
    if not isinstance(text, str | None):
        raise ValueError(f"{where}: {column!r} is not a text but a {type(text).__name__}")
    return text


def no_rows(source: object) -> ValueError:
    """The error that there is nothing in a source."""
    return ValueError(f"{source}: no rows")


def require_columns(where: object, wanted: Iterable[str], found: Collection[str]) -> None:
    """Raises a ValueError for the first column that is wanted and not there."""
    for name in wanted:
        if name not in found:
            raise ValueError(f"{where}: no column {name!r} among {', '.join(found) or 'none'}")


def name_of(origin: Origin) -> str:
    """The path of a file; `glue[train]` for the split of a dataset."""
    if isinstance(origin, Path):
        return str(origin)
    name = origin.info.dataset_name or "the dataset"
    return f"{name}[{origin.split}]" if origin.split else name


@contextmanager
def open_text(path: Path, encoding: str, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a text. One that turns out not to be in the encoding is a ValueError with the first line that is not."""
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        line = _undecodable_line(path, encoding)
        raise ValueError(f"{path}:{line}: not {encoding.removesuffix('-sig')}; --encoding says what it is") from None


def _undecodable_line(path: Path, encoding: str) -> int:
    """The number of the first line that is not in the encoding: the reader, which reads in blocks, does not know."""
    codecs.register_error("bert_jax.mark", lambda error: ("\udc80", getattr(error, "end", 0)))
    with path.open(encoding=encoding, errors="bert_jax.mark") as file:
        return next(number for number, line in enumerate(file, 1) if "\udc80" in line)


def _read_delimited(
    path: Path, columns: Sequence[str] | None, encoding: str, header: bool, skipped: list[str] | None
) -> Iterator[tuple[str, Row]]:
    with open_text(path, encoding, newline="") as file:
        lines = _split_lines(path, file)
        first = next((one for one in lines if one[1]), (1, []))
        names = first[1] if header else [str(number) for number in range(1, len(first[1]) + 1)]
        columns = names if columns is None else columns
        require_columns(path, columns, names)
        places = [(name, names.index(name)) for name in columns]
        if not header and first[1]:
            yield f"{path}:{first[0]}", {name: first[1][place] for name, place in places}
        blank: list[int] = []
        for line, fields in lines:
            if not fields:
                blank.append(line)
                continue
            if columns and len(names) == 1:  # between others, a blank line is a row whose only field is empty
                yield from ((f"{path}:{number}", dict.fromkeys(columns, "")) for number in blank)
            blank.clear()
            if len(fields) == len(names):
                yield f"{path}:{line}", {name: fields[place] for name, place in places}
                continue
            wanted = f"the {'header' if header else 'first row'} has {len(names)}"
            message = f"{path}:{line}: {len(fields)} columns, {wanted}"
            if skipped is None:
                raise ValueError(message)
            skipped.append(message)


def _split_lines(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The rows, each after the number of the line it begins in; a blank line has no field."""
    csv.field_size_limit(LONGEST_FIELD)
    if path.suffix.lower() == ".csv":
        rows = csv.reader(file, strict=True)
    else:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    while True:
        line = rows.line_num + 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}:{line}: {error}") from None
        if fields is None:
            return
        yield line, fields


def _read_json(path: Path, columns: Sequence[str] | None, encoding: str) -> Iterator[tuple[str, Row]]:
    with open_text(path, encoding) as file:
        for number, value in _json_values(path, file):
            where = f"{path}:{number}"
            if not isinstance(value, dict):
                raise ValueError(f"{where}: not a JSON object but a {type(value).__name__}")
            require_columns(where, columns or (), value)
            yield where, value if columns is None else {name: value[name] for name in columns}


def _json_values(path: Path, file: TextIO) -> Iterator[tuple[int, Any]]:
    if path.suffix.lower() == ".json" and file.read(1) == "[":
        file.seek(0)
        try:
            yield from enumerate(json.load(file), 1)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
        except RecursionError:
            raise ValueError(f"{path}: nested too deeply") from None
        return
    file.seek(0)
    for number, line in enumerate(file, 1):
        if not line.isspace():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not a JSON object a line ({error})") from None
            except RecursionError:
                raise ValueError(f"{path}:{number}: nested too deeply") from None


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    with _open_parquet(path) as file:
        schema = file.schema_arrow
        require_columns(path, columns or (), schema.names)
        batches = file.iter_batches(ROWS_AT_ONCE, columns=None if columns is None else list(columns))
        yield from _named_rows(path, batches, _declared_features(schema))


def _read_dataset(dataset: datasets.Dataset, columns: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    name = name_of(dataset)
    require_columns(name, columns or (), dataset.column_names)
    chosen: Any = dataset if columns is None else dataset.select_columns(list(columns))
    yield from _named_rows(name, chosen.with_format("arrow").iter(batch_size=ROWS_AT_ONCE), dataset.features)


def _named_rows(
    name: object, tables: Iterable[pa.Table | pa.RecordBatch], features: datasets.Features
) -> Iterator[tuple[str, Row]]:
    """Numbers the rows of pieces of a table, and gives classes their names."""
    namers = {column: namer for column, feature in features.items() if (namer := _namer(feature))}
    number = 0
    for table in tables:
        for row in table.to_pylist():
            number += 1
            for column, namer in namers.items():
                if row.get(column) is not None:
                    row[column] = namer(row[column])
            yield f"{name}:{number}", row


def _namer(feature: Any) -> Callable[[Any], Any] | None:
    """A function from a class, or a list of classes, to names; None for what holds none."""
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        return lambda value: names[value] if value >= 0 else None
    of_one = _namer(feature.feature) if isinstance(feature, datasets.List) else None
    return (lambda values: [of_one(value) for value in values]) if of_one else None


def _open_parquet(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({first_line(error)})") from None


def _declared_features(schema: pa.Schema) -> datasets.Features:
    """The features of a parquet file that `datasets` wrote; none for those of others."""
    if b"huggingface" in (schema.metadata or {}):
        return datasets.Features.from_arrow_schema(schema)
    return datasets.Features()


def first_line(error: BaseException) -> str:
    """What a message begins with: those of libraries may go on for pages."""
    return str(error).strip().split("\n")[0]
