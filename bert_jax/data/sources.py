"""Documents out of files of several kinds and out of datasets on the Hugging Face hub, as streams.

Mistakes in a source are told in one line, with the file and the line in it where there is one. That is why the files
with rows are not left to `datasets`, which reads whole blocks and cannot say. Nothing in a source is ever run.
"""

from __future__ import annotations

import codecs
import csv
import glob
import json
import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError
from pyarrow import parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

LONGEST_DOCUMENT = 1 << 28  # characters; a whole corpus without a blank line is longer
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
_FILE_SUFFIX = re.compile(r"\.(txt|text|csv|tsv|jsonl?|ndjson|parquet|gz|zip|xz|bz2|zst)$")

Origin = Path | datasets.Dataset


def find_origins(sources: Sequence[str], split: str) -> list[Origin]:
    """The files, once each, and the datasets that sources name."""
    origins: dict[str, Origin] = {}
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            raise IsADirectoryError(f"{source} is a folder: name its files, as in {source}/*.txt")
        if path.is_file():
            origins[str(path)] = path
        elif glob.has_magic(source):
            found = [name for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
            if not found:
                raise FileNotFoundError(f"no file matches {source}")
            origins.update({name: Path(name) for name in found})
        elif _HUB_NAME.fullmatch(source) and not _FILE_SUFFIX.search(source):
            origins[source] = _from_hub(source, split)
        else:
            raise FileNotFoundError(f"no such file: {source}")
    if not origins:
        raise ValueError("no corpus: name a file, a pattern of files, or a dataset on the hub")
    return list(origins.values())


def _from_hub(source: str, split: str) -> datasets.Dataset:
    name, _, config = source.partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        raise OSError(f"no such file: {source}, and no such dataset on the hub: {_first_line(error)}") from None


def read_documents(origin: Origin, text_column: str, encoding: str) -> Generator[str, None, None]:
    """Yields the texts of one file or dataset that are not empty."""
    if isinstance(origin, datasets.Dataset):
        texts = _read_dataset(origin, text_column)
    else:
        texts = _READERS.get(origin.suffix.lower(), _read_text)(origin, text_column, encoding)
    try:
        for text in texts:
            if text and not text.isspace():
                yield text
    except UnicodeDecodeError:
        line = _undecodable_line(origin, encoding) if isinstance(origin, Path) else 0
        raise ValueError(f"{origin}:{line}: not {encoding.removesuffix('-sig')}; --encoding says what it is") from None


def _undecodable_line(path: Path, encoding: str) -> int:
    """The number of the first line that is not in the encoding: the reader, which reads in blocks, does not know."""
    codecs.register_error("bert_jax.mark", lambda error: ("\udc80", getattr(error, "end", 0)))
    with path.open(encoding=encoding, errors="bert_jax.mark") as file:
        return next(number for number, line in enumerate(file, 1) if "\udc80" in line)


def _read_text(path: Path, text_column: str, encoding: str) -> Iterator[str]:
    with path.open(encoding=encoding) as file:
        number = 1
        for blank, group in groupby(file, key=str.isspace):
            lines, size, first = [], 0, number
            for line in group:
                number += 1
                if not blank:
                    lines.append(line)
                    size += len(line)
                if size > LONGEST_DOCUMENT:
                    raise ValueError(
                        f"{path}:{first}: a document of more than {LONGEST_DOCUMENT} characters; "
                        "blank lines separate documents"
                    )
            yield "".join(lines).rstrip("\n")


def _read_csv(path: Path, text_column: str, encoding: str) -> Iterator[str]:
    quoted = path.suffix.lower() == ".csv"
    with path.open(encoding=encoding, newline="") as file:
        csv.field_size_limit(LONGEST_DOCUMENT)
        rows = csv.reader(
            file,
            delimiter="," if quoted else "\t",
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            strict=True,
        )
        try:
            header = next(rows, [])
            column = _column(path, text_column, header)
            for row in rows:
                if row and len(row) != len(header):
                    raise ValueError(f"{path}:{rows.line_num}: {len(row)} columns, the header has {len(header)}")
                if row:
                    yield row[column]
        except csv.Error as error:
            raise ValueError(f"{path}:{rows.line_num}: {error}") from None


def _read_json(path: Path, text_column: str, encoding: str) -> Iterator[str | None]:
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not a JSON object a line ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: not a JSON object but a {type(row).__name__}")
            _column(f"{path}:{number}", text_column, list(row))
            text = row[text_column]
            if not isinstance(text, str | None):
                raise ValueError(f"{path}:{number}: {text_column!r} is not a text but a {type(text).__name__}")
            yield text


def _read_parquet(path: Path, text_column: str, encoding: str) -> Iterator[str | None]:
    try:
        file = parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({_first_line(error)})") from None
    with file:
        schema = file.schema_arrow
        _column(path, text_column, schema.names)
        _check_type(path, text_column, schema.field(text_column).type)
        for batch in file.iter_batches(64, columns=[text_column]):
            yield from batch[text_column].to_pylist()


def _read_dataset(dataset: datasets.Dataset, text_column: str) -> Iterator[str]:
    name = dataset.info.dataset_name or "the dataset"
    _column(name, text_column, dataset.column_names)
    _check_type(name, text_column, dataset.features.arrow_schema.field(text_column).type)
    yield from Texts(dataset.select_columns(text_column).rename_column(text_column, "text"))


_READERS: dict[str, Callable[[Path, str, str], Iterator[str | None]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
}


def _column(where: object, name: str, columns: list[str]) -> int:
    if name not in columns:
        raise ValueError(f"{where}: no column {name!r} among {', '.join(columns) or 'none'}")
    return columns.index(name)


def _check_type(where: object, name: str, found: pa.DataType) -> None:
    if found not in (pa.string(), pa.large_string()):
        raise ValueError(f"{where}: {name!r} is not a text but {found}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def codec(encoding: str) -> str:
    """The encoding's own name; that of UTF-8 skips a byte order mark."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"no such encoding: {encoding}") from None
    return "utf-8-sig" if name == "utf-8" else name


class Texts:
    """The column `text` of a dataset, to be walked any number of times, a few documents in memory at a time.

    Nulls are empty texts.
    """

    def __init__(self, documents: datasets.Dataset) -> None:
        self._documents: Any = documents.select_columns("text").with_format("arrow")

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[str]:
        for table in self._documents.iter(batch_size=64):
            for text in table["text"].to_pylist():
                yield text or ""
