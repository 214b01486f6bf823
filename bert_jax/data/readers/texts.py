"""Texts and pairs of texts to classify or to score, out of tables."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from collections.abc import Sequence

# What columns are called in the data sets people use; the first that is there is taken.
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "passage"), ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"),
)  # fmt: skip
TEXTS = ("sentence", "text", "review", "content", "document", "question", "tweet", "comment_text")
LABELS = ("label", "labels", "score", "gold_label", "class", "category", "target", "sentiment", "is_duplicate")


@dataclass(frozen=True)
class TextColumns:
    """Where in a table the texts and their labels are.

    Attributes:
        label: None where there is none.
        classes: the names of the classes in the order that the table declares them; None where it declares none.
    """

    text: str
    pair: str | None
    label: str | None
    classes: tuple[str, ...] | None


def find_text_columns(
    source: str,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
    header: bool = True,
    guess_label: bool = True,
) -> TextColumns:
    """Finds the columns of a source that are not named by what columns are usually called.

    A second text is looked for only where neither is named, a label only with `guess_label`. Capital and small letters
    are the same here.

    Raises:
        OSError, ValueError: no such source, no such column, none that is known to hold a text.
    """
    named = (text_column, pair_column, label_column)
    return _find_columns(find_origins([source], split)[0], named, codec(encoding), header, guess_label)


def _find_columns(
    origin: Origin, named: tuple[str | None, str | None, str | None], encoding: str, header: bool, guess_label: bool
) -> TextColumns:
    names = column_names(origin, encoding=encoding, header=header)
    require_columns(name_of(origin), [name for name in named if name], names)
    text_column, pair_column, label_column = named
    known = {name.lower(): name for name in reversed(names)}
    free = [known[name] for name in LABELS if name in known and known[name] not in named]
    label = label_column or (next(iter(free), None) if guess_label else None)
    if text_column is None:
        text_column, guessed = _guess_texts({name: own for name, own in known.items() if own not in named})
        pair_column = pair_column or guessed
    if text_column is None:
        ways = "name it with --text-column"
        if header and is_delimited(origin):
            ways += ", or say --no-header if these are data"
        raise ValueError(f"{name_of(origin)}: which column holds the text? There are {', '.join(names)}; {ways}")
    for name, count in Counter(filter(None, (text_column, pair_column, label))).items():
        if count > 1:
            raise ValueError(f"{name_of(origin)}: the column {name!r} cannot be two of text, pair and label")
    return TextColumns(text_column, pair_column, label, class_names(origin, label) if label else None)


def _guess_texts(known: dict[str, str]) -> tuple[str | None, str | None]:
    for first, second in PAIRS:
        if first in known and second in known:
            return known[first], known[second]
    for name in TEXTS:
        if name in known:
            return known[name], None
    return (next(iter(known.values())) if len(known) == 1 else None), None


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
) -> list[TextExample]:
    """Reads texts, or pairs of texts, with their labels.

    Args:
        source: a file, a pattern of files, or a dataset on the hub, as in `nyu-mll/glue:sst2`.
        text_column: this and the two below, where None, are what `find_text_columns` finds.
        problem_type: one of Hugging Face's. A label is the name of a class (a number's name is its digits), for
            `multi_label_classification` a list of such names, and for `regression` a finite number or a list of them.
        label_separator: between the names where several stand in one text.
        split: of a dataset on the hub.
        encoding: of the files.
        header: whether the first line of a csv or tsv names its columns. Else they are "1", "2" and so on.
        guess_label: whether a label is looked for where its column is not named.

    Returns:
        The examples in the order of their source; where a row has no label, that is None.

    Raises:
        OSError, ValueError: with a line that says what was wanted, what came, and where.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}; got {problem_type!r}")
    origins, encoding = find_origins([source], split), codec(encoding)
    columns = _find_columns(origins[0], (text_column, pair_column, label_column), encoding, header, guess_label)
    wanted = [name for name in (columns.text, columns.pair, columns.label) if name]
    examples = []
    for origin in origins:
        for where, row in read_rows(origin, wanted, encoding=encoding, header=header):
            text = given_text(row, columns.text, where)
            pair = given_text(row, columns.pair, where) if columns.pair else None
            label = None
            if columns.label and row[columns.label] is not None:
                label = parse_label(row[columns.label], problem_type, label_separator, f"{where}: {columns.label!r}")
            examples.append(TextExample(text, pair, label, where))
    if not examples:
        raise no_rows(source)
    return examples


def given_text(row: dict[str, Any], column: str, where: str) -> str:
    """The text in a column; that there is none is a ValueError."""
    text = text_of(row, column, where)
    if text is None:
        raise ValueError(f"{where}: no text in {column!r}")
    return text


def parse_label(value: Any, problem_type: str, separator: str, where: str) -> Label | None:
    """The label that a field holds, in the form its kind of problem has; None where the field is empty.

    Raises:
        ValueError: it holds something else.
    """
    if problem_type == "regression":
        if isinstance(value, str) and not value.strip():
            return None
        return tuple(_score(part, where) for part in value) if isinstance(value, list) else _score(value, where)
    if problem_type == "multi_label_classification":
        if isinstance(value, str):
            value = value.split(separator)
        parts: Sequence[Any] = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(name for part in parts if (name := class_name(part, where))))
    return class_name(value, where) or None


def class_name(value: Any, where: str) -> str:
    """The name of a class: a text without the space around it, or the digits of a whole number.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value).strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers with gaps between them are often kept so
    hints = {list: "; several labels make a multi_label_classification", float: "; scores make a regression"}
    raise ValueError(f"{where} is no class but {value!r:.60}{hints.get(type(value), '')}")


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{where} is no finite number but {value!r:.60}")
    return score
