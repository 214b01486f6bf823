"""Reads sentences of words with a tag each: CoNLL files, and tables with lists of words and tags.

A CoNLL file has one word and its tag per line; a blank line ends a sentence.

References: Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.data.readers.examples import TaggedExample
from bert_jax.data.readers.files import format_of, open_text
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import Origin, column_names, name_of, no_rows, read_rows, require_columns
from bert_jax.data.readers.texts import LABELS, TEXTS, class_name

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels", "ner", "pos_tags")
HEADER_WORDS = frozenset({*TEXTS, *WORDS, "token", "word"})  # what a header calls the first column of a table
HEADER_TAGS = frozenset({*LABELS, *TAGS, "tag"})  # and the last one
TABLES_WITH_LISTS = frozenset({".json", ".jsonl", ".ndjson", ".parquet"})
DOCUMENT_START = "-DOCSTART-"
MAX_PARTS_PER_WORD = 4.0  # on average; columns of more space-separated parts hold texts
CONLL = "a CoNLL file has one word and its tag per line, and a blank line after each sentence"


class TagColumns(NamedTuple):
    """The columns of words and tags: names, or in CoNLL files numbers from 1; `tags` is None without tags."""

    words: str
    tags: str | None


def read_tagged(
    source: str,
    *,
    word_column: str | None = None,
    tag_column: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
    on_columns: Callable[[TagColumns], object] | None = None,
) -> tuple[list[TaggedExample], TagColumns]:
    """Reads sentences of tagged words.

    Args:
        source: a file, a pattern of files, or a dataset on the hub. JSON and parquet files have one sentence per row;
            any other file is CoNLL, with columns separated by tabs if its first line has one, otherwise by space.
        word_column: the column of words: a name (default: `tokens` or `words`), or in CoNLL a number (default: 1).
        tag_column: the column of tags: a name (default: `ner_tags`, `tags`, ...), or in CoNLL a number (default: the
            last column).
        split: of a dataset on the hub.
        encoding: of the files.
        on_columns: called with the columns of the first file before its rows are read, so that an error in a row can
            be understood.

    Returns:
        The sentences in the order of the source, without tags if there is only a column of words; and the columns of
        the first file.

    Raises:
        OSError, ValueError: no such source or column, an invalid row, or a file that is not CoNLL; the message has
            file and line.
    """
    encoding = codec(encoding)
    examples: list[TaggedExample] = []
    columns: TagColumns | None = None

    def report(found: TagColumns) -> None:
        nonlocal columns
        if columns is None and on_columns is not None:
            on_columns(found)
        columns = columns or found

    for origin in find_origins([source], split):
        if isinstance(origin, Path) and format_of(origin) not in TABLES_WITH_LISTS:
            examples += _read_conll(origin, word_column, tag_column, encoding, report)
        else:
            found = _find_columns(origin, word_column, tag_column, encoding)
            report(found)
            examples += _read_lists(origin, found, encoding)
    if not examples or columns is None:
        raise no_rows(source)
    return examples, columns


def _find_columns(origin: Origin, word_column: str | None, tag_column: str | None, encoding: str) -> TagColumns:
    names = column_names(origin, encoding=encoding)
    require_columns(name_of(origin), [name for name in (word_column, tag_column) if name], names)
    words = word_column or next((name for name in WORDS if name in names), None)
    if words is None:
        remedy = f"There are {', '.join(names)}; name it with `word_column`"
        raise ValueError(f"{name_of(origin)}: which column holds the words? {remedy}")
    return TagColumns(words, tag_column or next((name for name in TAGS if name in names), None))


def _read_lists(origin: Origin, columns: TagColumns, encoding: str) -> Iterator[TaggedExample]:
    for where, row in read_rows(origin, [name for name in columns if name], encoding=encoding):
        words = _list_in(row, columns.words, where)
        for word in words:
            if not isinstance(word, str):
                raise ValueError(f"{where}: {columns.words!r} holds {word!r}, which is not a word")
        tags = None
        if columns.tags is not None and row[columns.tags] is not None:
            tags = tuple(class_name(tag, f"{where}: {columns.tags!r}") for tag in _list_in(row, columns.tags, where))
            if len(tags) != len(words):
                raise ValueError(f"{where}: {len(words)} words and {len(tags)} tags")
        yield TaggedExample(tuple(words), tags, where)


def _list_in(row: dict[str, Any], column: str, where: str) -> list[Any]:
    if not isinstance(row[column], list):
        raise ValueError(f"{where}: {column!r} is not a list but a {type(row[column]).__name__}")
    return row[column]


def _read_conll(
    path: Path,
    word_column: str | None,
    tag_column: str | None,
    encoding: str,
    on_columns: Callable[[TagColumns], None],
) -> list[TaggedExample]:
    examples: list[TaggedExample] = []
    words: list[str] = []
    tags: list[str] = []
    where = ""
    columns: TagColumns | None = None
    for line, fields in _split_conll(path, encoding):
        if fields:
            if not words:
                where = f"{path}:{line}"
            width = len(fields)
            if columns is None:
                columns = TagColumns(word_column or "1", tag_column or (str(width) if width > 1 else None))
                on_columns(columns)
            words.append(fields[_field_index(path, columns.words, width)])
            if columns.tags and width > 1:
                tags.append(fields[_field_index(path, columns.tags, width)])
        elif words:
            examples.append(TaggedExample(tuple(words), tuple(tags) or None, where))
            words = []
            tags = []
    _require_words(path, examples)
    return examples


def _require_words(path: Path, examples: list[TaggedExample]) -> None:
    """Raises ValueError if the first columns are texts, as in a table to classify, not words."""
    parts = [len(word.split()) for example in examples for word in example.words]
    if parts and sum(parts) > MAX_PARTS_PER_WORD * len(parts):
        mean = sum(parts) / len(parts)
        raise ValueError(f"{path}: the words have {mean:.0f} parts on average, so they are texts; {CONLL}")


def _field_index(path: Path, column: str, width: int) -> int:
    """Returns the index of the column with a number from 1."""
    if not column.isdecimal() or not 1 <= int(column) <= width:
        raise ValueError(f"{path}: no column {column!r} among 1 to {width}; columns of a CoNLL file are numbered")
    return int(column) - 1


def _split_conll(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yields line numbers and fields: the same number in all lines, and none where a sentence ends."""
    if format_of(path) == ".csv":
        raise ValueError(f"{path}: tagged words are read from CoNLL, JSON and parquet files, not from .csv")
    separator = None
    width = 0
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if line.isspace() or line.startswith(DOCUMENT_START):
                yield number, []
                continue
            separator = separator or ("\t" if "\t" in line else None)
            fields = line.rstrip().split(separator)
            if width == 0 and fields[0].lower() in HEADER_WORDS and fields[-1].lower() in HEADER_TAGS:
                raise ValueError(f"{path}:{number}: {line.rstrip()!r} is a header; {CONLL}")
            width = width or len(fields)
            if not fields[0] or len(fields) == 1 < width:
                raise ValueError(f"{path}:{number}: {line.rstrip()!r} is not a word and its tag")
            if len(fields) != width:
                raise ValueError(f"{path}:{number}: {len(fields)} columns, the lines before have {width}")
            yield number, fields
    yield 0, []
