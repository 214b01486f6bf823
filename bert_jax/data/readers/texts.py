"""Reads texts and pairs of texts, with their labels, from tables."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bert_jax.config import PROBLEM_TYPES
from bert_jax.data.readers.examples import Label, TextExample
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import (
    Origin,
    class_names,
    column_names,
    is_delimited,
    name_of,
    no_rows,
    read_rows,
    require_columns,
    text_of,
)

# Names of columns in common data sets; the first one in the table is used.
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "passage"), ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"),
)  # fmt: skip
TEXTS = ("sentence", "text", "review", "content", "document", "question", "tweet", "comment_text")
LABELS = ("label", "labels", "score", "gold_label", "class", "category", "target", "sentiment", "is_duplicate")


@dataclass(frozen=True)
class TextColumns:
    """The columns of texts and labels in a table.

    Attributes:
        pair: None without second texts.
        label: None without labels.
        classes: the class names in the order that the table declares; None if it declares none.
    """

    text: str
    pair: str | None
    label: str | None
    classes: tuple[str, ...] | None


def read_texts(
    source: str,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    problem_type: str = "single_label_classification",
    label_separator: str = ",",
    split: str = "train",
    encoding: str = "utf-8",
    header: bool = True,
    guess_label: bool = True,
    on_columns: Callable[[TextColumns], object] | None = None,
) -> tuple[list[TextExample], TextColumns]:
    """Reads texts, or pairs of texts, with their labels.

    Args:
        source: a file, a pattern of files, or a dataset on the hub, as in `nyu-mll/glue:sst2`.
        text_column: None finds this and the next two by common names, in upper or lower case; a second text only if
            `pair_column` and `text_column` are both None.
        problem_type: one of Hugging Face's. A label is the name of a class (of a number, its digits), for
            `multi_label_classification` a list of such names, and for `regression` a finite number or a list of them.
        label_separator: between the names of several classes in one field.
        split: of a dataset on the hub.
        encoding: of the files.
        header: whether the first line of a csv or tsv file names its columns. Otherwise they are "1", "2" and so on.
        guess_label: whether to find the label by common names too.
        on_columns: called with the columns before the rows are read, so that an error in a row can be understood.

    Returns:
        The examples in the order of the source, with label None in rows without one; and the columns.

    Raises:
        OSError, ValueError: no such source or column, or an invalid row; the message has file and line.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"`problem_type` must be one of {', '.join(PROBLEM_TYPES)}; got {problem_type!r}")
    origins = find_origins([source], split)
    encoding = codec(encoding)
    names = column_names(origins[0], encoding=encoding, header=header)
    columns = _find_columns(origins[0], names, (text_column, pair_column, label_column), header, guess_label)
    if on_columns is not None:
        on_columns(columns)
    wanted = [name for name in (columns.text, columns.pair, columns.label) if name]
    examples = []
    for origin in origins:
        for where, row in read_rows(origin, wanted, encoding=encoding, header=header):
            text = require_text(row, columns.text, where)
            pair = require_text(row, columns.pair, where) if columns.pair else None
            label = None
            if columns.label and row[columns.label] is not None:
                label = parse_label(row[columns.label], problem_type, label_separator, f"{where}: {columns.label!r}")
            examples.append(TextExample(text, pair, label, where))
    if not examples:
        raise no_rows(source)
    return examples, columns


def _find_columns(
    origin: Origin,
    names: Sequence[str],
    named: tuple[str | None, str | None, str | None],
    header: bool,
    guess_label: bool,
) -> TextColumns:
    """Returns the columns that are named, and finds the others among `names`."""
    require_columns(name_of(origin), [name for name in named if name], names)
    text_column, pair_column, label_column = named
    by_lower_name = {name.lower(): name for name in reversed(names)}
    free = {lower: name for lower, name in by_lower_name.items() if name not in named}
    if label_column is None and guess_label:
        label_column = next((free[name] for name in LABELS if name in free), None)
    if text_column is None:
        text_column, guessed_pair = _guess_texts(free)
        pair_column = pair_column or guessed_pair
    if text_column is None:
        remedy = "name it with `text_column`"
        if header and is_delimited(origin):
            remedy += ", or set `header=False` if these are data"
        raise ValueError(f"{name_of(origin)}: which column holds the text? There are {', '.join(names)}; {remedy}")
    for name, count in Counter(filter(None, (text_column, pair_column, label_column))).items():
        if count > 1:
            raise ValueError(f"{name_of(origin)}: column {name!r} can only be one of text, pair and label")
    classes = class_names(origin, label_column) if label_column else None
    return TextColumns(text_column, pair_column, label_column, classes)


def _guess_texts(names: dict[str, str]) -> tuple[str | None, str | None]:
    """Returns the columns of the text and of the second text, given {lower-case name: name}."""
    for first, second in PAIRS:
        if first in names and second in names:
            return names[first], names[second]
    for name in TEXTS:
        if name in names:
            return names[name], None
    return (next(iter(names.values())) if len(names) == 1 else None), None


def require_text(row: dict[str, Any], column: str, where: str) -> str:
    """Returns the text in a column; raises ValueError if there is none."""
    text = text_of(row, column, where)
    if text is None:
        raise ValueError(f"{where}: no text in {column!r}")
    return text


def parse_label(value: Any, problem_type: str, separator: str, where: str) -> Label | None:
    """Returns the label in a field, in the form of the problem; None for an empty field.

    Raises:
        ValueError: the field holds something else.
    """
    if problem_type == "regression":
        if isinstance(value, str) and not value.strip():
            return None
        return tuple(_score(part, where) for part in value) if isinstance(value, list) else _score(value, where)
    if problem_type == "multi_label_classification":
        if isinstance(value, str):
            value = value.split(separator)
        parts: Sequence[Any] = value if isinstance(value, list) else [value]
        names = [class_name(part, where) for part in parts]
        return tuple(dict.fromkeys(name for name in names if name))  # each once, in order
    return class_name(value, where) or None


def class_name(value: Any, where: str) -> str:
    """Returns the name of a class: a text without surrounding space, or the digits of a whole number.

    Raises:
        ValueError: the value is something else.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value).strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas stores whole numbers with missing values as floats
    hints = {
        list: "; for several labels use `problem_type=multi_label_classification`",
        float: "; for scores use `problem_type=regression`",
    }
    raise ValueError(f"{where} is not a class: {value!r:.60}{hints.get(type(value), '')}")


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{where} is not a finite number: {value!r:.60}")
    return score
