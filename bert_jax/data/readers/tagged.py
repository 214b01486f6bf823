"""Sentences of words with a tag each: CoNLL files, and tables with lists of words and of tags.

A CoNLL file has a word a line, its tag behind it; an empty line, or one of nothing but white space, ends a sentence.

References: Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_jax.data.readers.examples import TaggedExample
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import Origin, column_names, name_of, no_rows, open_text, read_rows, require_columns
from bert_jax.data.readers.texts import class_name

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels", "ner", "pos_tags")
TABLES_WITH_LISTS = frozenset({".json", ".jsonl", ".ndjson", ".parquet"})
DOCUMENT_START = "-DOCSTART-"


def read_tagged(
    source: str,
    *,
    word_column: str | None = None,
    tag_column: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
) -> list[TaggedExample]:
    """Reads sentences of tagged words.

    Args:
        source: a file, a pattern of files, or a dataset on the hub. JSON and parquet files have a sentence a row; any
            other file is CoNLL, its columns set apart by tabs if the first line has one, else by white space.
        word_column: where the words are: a name (by default `tokens` or `words`), or in CoNLL a number from 1 (1).
        tag_column: where the tags are: a name (by default `ner_tags`, `tags`, ...), or in CoNLL a number (the last).
        split: of a dataset on the hub.
        encoding: of the files.

    Returns:
        The sentences in the order of their source; without tags where there is only a column of words.

    Raises:
        OSError, ValueError: with a line that says what was wanted, what came, and where.
    """
    examples: list[TaggedExample] = []
    for origin in find_origins([source], split):
        if isinstance(origin, Path) and _is_conll(origin):
            examples.extend(_read_conll(origin, word_column, tag_column, codec(encoding)))
        else:
            examples.extend(_read_lists(origin, word_column, tag_column, codec(encoding)))
    if not examples:
        raise no_rows(source)
    return examples


def find_tag_columns(
    source: str,
    *,
    word_column: str | None = None,
    tag_column: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
) -> tuple[str, str | None]:
    """Finds the columns of the words and of the tags, None where there are no tags; those of CoNLL are numbered.

    Raises:
        OSError, ValueError: no such source, no such column, none that is known to hold words.
    """
    [origin, *_], encoding = find_origins([source], split), codec(encoding)
    if not _is_conll(origin):
        return _find_lists(origin, word_column, tag_column, encoding)
    assert isinstance(origin, Path)
    width = next((len(fields) for _, fields in _split_conll(origin, encoding) if fields), 1)
    return word_column or "1", tag_column or (str(width) if width > 1 else None)


def _is_conll(origin: Origin) -> bool:
    return isinstance(origin, Path) and origin.suffix.lower() not in TABLES_WITH_LISTS


def _find_lists(
    origin: Origin, word_column: str | None, tag_column: str | None, encoding: str
) -> tuple[str, str | None]:
    names = column_names(origin, encoding=encoding)
    require_columns(name_of(origin), [name for name in (word_column, tag_column) if name], names)
    words_in = word_column or next((name for name in WORDS if name in names), None)
    if words_in is None:
        raise ValueError(f"{name_of(origin)}: which column holds the words? There are {', '.join(names)}")
    return words_in, tag_column or next((name for name in TAGS if name in names), None)


def _read_lists(
    origin: Origin, word_column: str | None, tag_column: str | None, encoding: str
) -> Iterator[TaggedExample]:
    words_in, tags_in = _find_lists(origin, word_column, tag_column, encoding)
    for where, row in read_rows(origin, [name for name in (words_in, tags_in) if name], encoding=encoding):
        words = _list_in(row, words_in, where)
        for word in words:
            if not isinstance(word, str):
                raise ValueError(f"{where}: {words_in!r} holds {word!r}, which is not a word")
        tags = None
        if tags_in is not None and row[tags_in] is not None:
            tags = tuple(class_name(tag, f"{where}: {tags_in!r}") for tag in _list_in(row, tags_in, where))
            if len(tags) != len(words):
                raise ValueError(f"{where}: {len(words)} words and {len(tags)} tags")
        yield TaggedExample(tuple(words), tags, where)


def _list_in(row: dict[str, Any], column: str, where: str) -> list[Any]:
    if not isinstance(row[column], list):
        raise ValueError(f"{where}: {column!r} is not a list but a {type(row[column]).__name__}")
    return row[column]


def _read_conll(path: Path, word_column: str | None, tag_column: str | None, encoding: str) -> Iterator[TaggedExample]:
    words: list[str] = []
    tags: list[str] = []
    where = ""
    for line, fields in _split_conll(path, encoding):
        if fields:
            word_at, tag_at = (_place(path, column, fields) for column in (word_column or "1", tag_column))
            where = where if words else f"{path}:{line}"
            words.append(fields[word_at])
            tags.extend(fields[tag_at:][:1] if len(fields) > 1 else ())
        elif words:
            yield TaggedExample(tuple(words), tuple(tags) or None, where)
            words, tags = [], []


def _place(path: Path, column: str | None, fields: list[str]) -> int:
    """Where the column of a number from 1 is among the fields; the last one by default."""
    if column is None:
        return len(fields) - 1
    if not column.isdecimal() or not 1 <= int(column) <= len(fields):
        raise ValueError(f"{path}: no column {column!r} among 1 to {len(fields)}: a CoNLL file has numbers for names")
    return int(column) - 1


def _split_conll(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """The columns of each line, equally many in all but those that end a sentence, which have none."""
    if path.suffix.lower() == ".csv":
        raise ValueError(f"{path}: tagged words are read from CoNLL, JSON and parquet files, not from .csv")
    separator, width = None, 0
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if line.isspace() or line.startswith(DOCUMENT_START):
                yield number, []
                continue
            separator = separator or ("\t" if "\t" in line else None)
            fields = line.rstrip().split(separator)
            width = width or len(fields)
            if not fields[0] or len(fields) == 1 < width:
                raise ValueError(f"{path}:{number}: {line.rstrip()!r} is not a word and its tag")
            if len(fields) != width:
                raise ValueError(f"{path}:{number}: {len(fields)} columns, the lines before have {width}")
            yield number, fields
    yield 0, []
