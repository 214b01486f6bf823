"""Reads sentences of words with a tag each: CoNLL files, and tables with lists of words and tags."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import datasets

from bert_jax.data.readers.cells import class_name
from bert_jax.data.readers.conll import TAGS, WORDS, ChosenColumns, TagColumns, read_conll
from bert_jax.data.readers.examples import IGNORED_TAG, TaggedExample
from bert_jax.data.readers.files import format_of
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import (
    Origin,
    class_names,
    column_names,
    name_of,
    no_rows,
    read_rows,
    require_columns,
)
from bert_jax.messages import counted

TABLES_WITH_LISTS = frozenset({".json", ".jsonl", ".ndjson", ".parquet"})
_NUMBER = re.compile(r"-?\d+")


def read_tagged(
    source: str,
    *,
    word_column: str | None = None,
    tag_column: str | None = None,
    label_names: Sequence[str] | None = None,
    split: str = "train",
    encoding: str = "utf-8",
    trained_on: Mapping[str, str] = MappingProxyType({}),
    on_columns: Callable[[TagColumns], object] | None = None,
    report: ReadReport | None = None,
) -> tuple[list[TaggedExample], TagColumns]:
    """Reads sentences of tagged words.

    Args:
        source: a file, a pattern of files, or a dataset on the hub. JSON and parquet files have one sentence per row;
            any other file is CoNLL (`conll.py`).
        word_column: the column of words: a name (default: `tokens` or `words`), or in CoNLL a number (default: 1, or 2
            if the first column numbers the words).
        tag_column: the column of tags: a name (default: `ner_tags`, `tags`, ...), or in CoNLL a number (default: the
            last column, in CoNLL-U the fourth).
        label_names: the names of tags that are numbers: a tag 2 has the third name.
        split: of a dataset on the hub.
        encoding: of the files.
        trained_on: columns that a model was trained on, {"words": name, "tags": name}; preferred to the default.
        on_columns: called with the columns of the first file before its rows are read, so that an error in a row can
            be understood.
        report: counts the rows (of CoNLL files: the lines that are not blank) and those that are skipped.

    Returns:
        The sentences in the order of the source, without tags if there is only a column of words; and the columns of
        the first file. A tag -100, or a missing class of a dataset, is `IGNORED_TAG`.

    Raises:
        OSError, ValueError: no such source or column, an invalid row, a number without a name among `label_names`, or a
            file that is not CoNLL; the message has file and line.
    """
    encoding = codec(encoding)
    report = report or ReadReport(source)
    chosen = ChosenColumns(word_column, tag_column, trained_on)
    examples: list[TaggedExample] = []
    columns: TagColumns | None = None

    def keep_columns(found: TagColumns) -> None:
        nonlocal columns
        if columns is None and on_columns is not None:
            on_columns(found)
        columns = columns or found

    for origin in find_origins([source], split):
        options: Any = {"encoding": encoding, "on_columns": keep_columns, "report": report}
        if not isinstance(origin, datasets.Dataset) and format_of(origin) not in TABLES_WITH_LISTS:
            examples += read_conll(origin, chosen, **options)
        else:
            examples += _read_lists(origin, chosen, **options)
    if not examples or columns is None:
        raise no_rows(source)
    report.columns = {"words": columns.words} | ({"tags": columns.tags} if columns.tags else {})
    names = label_names if label_names is not None else columns.classes
    if names is not None:
        examples = [_with_names(example, names) for example in examples]
    return examples, columns


def require_named_tags(examples: Iterable[TaggedExample], names: Collection[str] = ()) -> None:
    """Raises ValueError if all tags are numbers: class 0 would be an entity like the others, although it is `O`.

    Args:
        names: of a model that was trained with such tags; if they include all tags, these are names.
    """
    places = {tag: example.where for example in examples for tag in example.tags or () if tag != IGNORED_TAG}
    if places and all(map(_NUMBER.fullmatch, places)) and not places.keys() <= set(names):
        tag = min(places)
        raise ValueError(
            f"{places[tag]}: the tags are numbers, such as {tag}; give their names with `label_names`, in the order of "
            "the numbers: O,B-per,I-per"
        )


def without_ignored(example: TaggedExample) -> TaggedExample:
    """Returns a sentence without the words that are ignored."""
    if example.tags is None or IGNORED_TAG not in example.tags:
        return example
    pairs = [(word, tag) for word, tag in zip(example.words, example.tags, strict=True) if tag != IGNORED_TAG]
    return replace(example, words=tuple(word for word, _ in pairs), tags=tuple(tag for _, tag in pairs))


def _find_columns(origin: Origin, chosen: ChosenColumns, encoding: str) -> TagColumns:
    names = column_names(origin, encoding=encoding)
    require_columns(name_of(origin), [name for name in (chosen.words, chosen.tags) if name], names)
    word_column, tag_column = chosen.among(names)
    words = word_column or next((name for name in WORDS if name in names), None)
    if words is None:
        remedy = f"There are {', '.join(names)}; name it with `word_column`"
        raise ValueError(f"{name_of(origin)}: which column holds the words? {remedy}")
    tags = tag_column or next((name for name in TAGS if name in names), None)
    return TagColumns(words, tags, class_names(origin, tags) if tags else None)


def _read_lists(
    origin: Origin,
    chosen: ChosenColumns,
    *,
    encoding: str,
    on_columns: Callable[[TagColumns], None],
    report: ReadReport,
) -> Iterator[TaggedExample]:
    report.unit = "sentences"
    columns = _find_columns(origin, chosen, encoding)
    on_columns(columns)
    wanted = [name for name in (columns.words, columns.tags) if name]
    for where, row in read_rows(origin, wanted, encoding=encoding):
        report.rows += 1
        words = _list_in(row, columns.words, where)
        for word in words:
            if not isinstance(word, str):
                raise ValueError(f"{where}: {columns.words!r} holds {word!r}, which is not a word")
        tags = None
        if columns.tags is not None and row[columns.tags] is not None:
            tags = tuple(_tag(tag, columns, where) for tag in _list_in(row, columns.tags, where))
            if len(tags) != len(words):
                raise ValueError(f"{where}: {counted(len(words), 'word')} and {counted(len(tags), 'tag')}")
        yield TaggedExample(tuple(words), tags, where)


def _list_in(row: dict[str, Any], column: str, where: str) -> list[Any]:
    if not isinstance(row[column], list):
        raise ValueError(f"{where}: {column!r} is not a list but {row[column]!r:.60}")
    return row[column]


def _tag(value: Any, columns: TagColumns, where: str) -> str:
    """Returns the tag in a list; a missing class of a dataset is a word to ignore."""
    if value is None and columns.classes is not None:
        return IGNORED_TAG
    tag = class_name(value, f"{where}: {columns.tags!r}")
    if not tag:
        raise ValueError(f"{where}: {columns.tags!r} has an empty tag")
    return tag


def _with_names(example: TaggedExample, names: Sequence[str]) -> TaggedExample:
    """Returns a sentence whose tags are names instead of numbers."""
    if example.tags is None:
        return example
    return replace(example, tags=tuple(_name_of_tag(tag, names, example.where) for tag in example.tags))


def _name_of_tag(tag: str, names: Sequence[str], where: str) -> str:
    if tag == IGNORED_TAG or tag in names or not _NUMBER.fullmatch(tag):
        return tag
    if not 0 <= int(tag) < len(names):
        raise ValueError(f"{where}: tag {tag} has no name among the {len(names)} of `label_names`")
    return names[int(tag)]
