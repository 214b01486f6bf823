"""Streams the rows of tables: csv, tsv, JSON and parquet files, and datasets from the Hugging Face hub.

Error messages are one line, with the file and its line number. `datasets` could read files too, but in whole blocks and
without line numbers. No code in a source is ever run.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import datasets
import pyarrow as pa
from pyarrow import parquet

from bert_jax.data.readers.delimited import Row, is_unseparated, other_separator, read_delimited, require_columns
from bert_jax.data.readers.files import File, compression_of, format_of, open_text
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.slices import RowGroups
from bert_jax.messages import first_line

ROWS_AT_ONCE = 64  # each may hold a whole book

Origin = File | datasets.Dataset


def read_rows(
    origin: Origin,
    columns: Sequence[str] | None = None,
    *,
    encoding: str = "utf-8-sig",
    header: bool = True,
    ragged: ReadReport | None = None,
) -> Iterator[tuple[str, Row]]:
    """Yields the place and the values of each row of a file or dataset.

    The suffix decides the format: .csv or .tsv (see `delimited`); .jsonl or .ndjson, one object per line; .json, the
    same or one array of objects; .parquet. Text files may be compressed: `a.csv.gz` is a csv file. Columns of class
    labels give the names of the classes, and None for the -1 that means "no label" in a dataset.

    Args:
        columns: the columns to read; None reads all.
        header: whether the first line of a csv or tsv file names its columns. Otherwise they are "1", "2" and so on.
        ragged: counts rows of a csv or tsv file with missing or extra fields, which are then skipped. With None such a
            row is an error.

    Returns:
        Pairs of a place, as in `train.tsv:17` (the line of a text file, otherwise the row, from 1), and the values.

    Raises:
        ValueError: a missing column, an invalid row, or a file format without rows.
    """
    if isinstance(origin, datasets.Dataset):
        return _read_dataset(origin, columns)
    match format_of(origin):
        case ".csv" | ".tsv":
            return read_delimited(origin, columns, encoding, header, ragged)
        case ".json" | ".jsonl" | ".ndjson":
            return _read_json(origin, columns, encoding)
        case ".parquet":
            return _read_parquet(origin, columns)
    raise ValueError(f"{origin}: rows are read from {', '.join(sorted(TABLES))} files, not from {origin.suffix}")


TABLES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"})


def is_delimited(origin: Origin) -> bool:
    """Returns whether this is a csv or tsv file, whose first line may be a header."""
    return not isinstance(origin, datasets.Dataset) and format_of(origin) in {".csv", ".tsv"}


def column_names(origin: Origin, *, encoding: str = "utf-8-sig", header: bool = True) -> list[str]:
    """Returns the names of the columns of the first row.

    Raises:
        ValueError: no rows.
    """
    for _, row in read_rows(origin, encoding=encoding, header=header, ragged=ReadReport(name_of(origin))):
        return list(row)
    raise no_rows(name_of(origin))


def note_separator(origin: Origin, report: ReadReport, *, encoding: str, header: bool) -> None:
    """Counts a csv or tsv file whose columns are not separated as its suffix says."""
    if not isinstance(origin, datasets.Dataset) and is_delimited(origin):
        separator = other_separator(origin, encoding, header)
        if separator is not None:
            report.change(f"file with {separator!r} between columns", name_of(origin))


def looks_unseparated(origin: Origin, names: Sequence[str]) -> bool:
    """Returns whether a csv or tsv file has one column with a name such as `text;label`."""
    return is_delimited(origin) and is_unseparated(names)


def class_names(origin: Origin, column: str) -> tuple[str, ...] | None:
    """Returns the class names of a column in the order that a dataset declares; None if it declares none."""
    if isinstance(origin, datasets.Dataset):
        features = origin.features
    elif format_of(origin) == ".parquet":
        with _open_parquet(origin) as file:
            features = _declared_features(origin, file.schema_arrow)
    else:
        return None
    feature = features.get(column)
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def text_of(row: Row, column: str, where: str) -> str | None:
    """Returns the text in a column; None for a null.

    Raises:
        ValueError: the column holds something else.
    """
    text = row[column]
    if not isinstance(text, str | None):
        raise ValueError(f"{where}: {column!r} is not a text but a {type(text).__name__}")
    return text


def no_rows(source: object) -> ValueError:
    """Returns the error for an empty source."""
    return ValueError(f"{source}: no rows")


def name_of(origin: Origin) -> str:
    """Returns the path of a file, or `glue[train]` for the split of a dataset."""
    if not isinstance(origin, datasets.Dataset):
        return str(origin)
    name = origin.info.dataset_name or "the dataset"
    return f"{name}[{origin.split}]" if origin.split else name


def _read_json(path: File, columns: Sequence[str] | None, encoding: str) -> Iterator[tuple[str, Row]]:
    with open_text(path, encoding) as file:
        for number, value in _json_values(path, file):
            where = f"{path}:{number}"
            if not isinstance(value, dict):
                raise ValueError(f"{where}: not a JSON object but a {type(value).__name__}")
            require_columns(where, columns or (), value)
            yield where, value if columns is None else {name: value[name] for name in columns}


def _json_values(path: File, file: TextIO) -> Iterator[tuple[int, Any]]:
    """Yields the value of each line with its number, or each element of one array with its index, from 1."""
    blank = 0
    first = file.readline()
    while first.isspace():
        blank += 1
        first = file.readline()
    if format_of(path) == ".json" and first.lstrip().startswith("["):
        yield from enumerate(parse_json(path, first + file.read(), lines_before=blank), 1)
        return
    for number, line in enumerate(itertools.chain([first], file), blank):
        if line and not line.isspace():
            yield number + 1, parse_json(path, line.rstrip(), "not a JSON object a line", lines_before=number)


def parse_json(path: File, text: str, otherwise: str = "not JSON", *, lines_before: int = 0, hint: str = "") -> Any:
    """Returns the value of a JSON text that begins after `lines_before` lines of a file.

    Raises:
        ValueError: it is not JSON, with file, line, `otherwise` and `hint`.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{lines_before + error.lineno}: {otherwise} ({error.msg}){hint}") from None
    except RecursionError:
        raise ValueError(f"{path}:{lines_before + 1}: nested too deeply{hint}") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise ValueError(f"{path}:{lines_before + 1}: {otherwise} ({error}){hint}") from None


def _read_parquet(path: File, columns: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    with _open_parquet(path) as file:
        schema = file.schema_arrow
        require_columns(path, columns or (), schema.names)
        groups = range(path.start, path.end) if isinstance(path, RowGroups) else None
        batches = file.iter_batches(ROWS_AT_ONCE, groups, None if columns is None else list(columns))
        yield from _named_rows(path, batches, _declared_features(path, schema))


def _read_dataset(dataset: datasets.Dataset, columns: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    name = name_of(dataset)
    require_columns(name, columns or (), dataset.column_names)
    chosen: Any = dataset if columns is None else dataset.select_columns(list(columns))
    yield from _named_rows(name, chosen.with_format("arrow").iter(batch_size=ROWS_AT_ONCE), dataset.features)


def _named_rows(
    name: object, tables: Iterable[pa.Table | pa.RecordBatch], features: datasets.Features
) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a table in pieces, with their places and with class names instead of ids."""
    namers = {column: namer for column, feature in features.items() if (namer := _namer(feature))}
    number = 0
    for table in tables:
        for row in table.to_pylist():
            number += 1
            for column, namer in namers.items():
                if row.get(column) is not None:
                    try:
                        row[column] = namer(row[column])
                    except IndexError:
                        raise ValueError(f"{name}:{number}: {column!r} has no name for {row[column]!r:.60}") from None
            yield f"{name}:{number}", row


def _namer(feature: Any) -> Callable[[Any], Any] | None:
    """Returns a function from class ids, or lists of them, to names; None for a feature without classes."""
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        return lambda value: None if value is None or value < 0 else names[value]
    of_one = _namer(feature.feature) if isinstance(feature, datasets.List) else None
    return (lambda values: [of_one(value) for value in values]) if of_one else None


@contextmanager
def _open_parquet(path: File) -> Iterator[parquet.ParquetFile]:
    with path.open("rb") as file:
        try:
            opened = parquet.ParquetFile(file)
        except pa.ArrowInvalid as error:
            file.seek(0)
            compression = compression_of(file)
            reason = f"compressed by {compression}; decompress it" if compression else first_line(error)
            raise ValueError(f"{path}: not a parquet file ({reason})") from None
        yield opened


def _declared_features(path: File, schema: pa.Schema) -> datasets.Features:
    """Returns the features of a parquet file written by `datasets`; none for other files."""
    if b"huggingface" not in (schema.metadata or {}):
        return datasets.Features()
    try:
        return datasets.Features.from_arrow_schema(schema)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"{path}: the features that `datasets` stored in it are not valid ({first_line(error)})"
        ) from None
