"""Reads texts and pairs of texts, with their labels, from tables."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from bert_jax.config import PROBLEM_TYPES
from bert_jax.data.readers.cells import is_missing, parse_label, score
from bert_jax.data.readers.examples import Label, TextExample
from bert_jax.data.readers.label_lists import are_multi_hot, is_flag, names_of_ones, read_flags
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import (
    Origin,
    Row,
    class_names,
    column_names,
    is_delimited,
    looks_unseparated,
    name_of,
    no_rows,
    note_separator,
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
SAMPLE = 100  # rows in which columns of zeros and ones are looked for
ROW_NUMBERS = frozenset(
    {"", "id", "idx", "index", "unnamed: 0"}
)  # columns of row numbers, which may begin with 0 and 1
LABELS = ("label", "labels", "score", "gold_label", "class", "category", "target", "sentiment", "is_duplicate")
_BETWEEN_FLAGS = ", "


@dataclass(frozen=True)
class TextColumns:
    """The columns of texts and labels in a table.

    Attributes:
        pair: None without second texts.
        label: None without labels, or with one column for each label.
        classes: the class names in the order that the table declares; None if it declares none.
        flags: one column for each label; empty with one column of labels.
    """

    text: str
    pair: str | None
    label: str | None
    classes: tuple[str, ...] | None
    flags: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return [name for name in (self.text, self.pair, self.label, *self.flags) if name is not None]

    @property
    def by_role(self) -> dict[str, str]:
        """The columns of the texts and the label: {"text": "review", "label": "stars"}."""
        roles = {"text": self.text, "pair": self.pair, "label": _BETWEEN_FLAGS.join(self.flags) or self.label}
        return {role: name for role, name in roles.items() if name is not None}


def read_texts(
    source: str,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    label_names: Sequence[str] = (),
    problem_type: str = "single_label_classification",
    label_separator: str = ",",
    split: str = "train",
    encoding: str = "utf-8",
    header: bool = True,
    guess_label: bool = True,
    trained_on: Mapping[str, str] = MappingProxyType({}),
    on_columns: Callable[[TextColumns], object] | None = None,
    report: ReadReport | None = None,
) -> tuple[list[TextExample], TextColumns]:
    """Reads texts, or pairs of texts, with their labels.

    Args:
        source: a file, a pattern of files, or a dataset on the hub, as in `nyu-mll/glue:sst2`.
        text_column: None finds this and the next two by common names, in upper or lower case; a second text only if
            `pair_column` and `text_column` are both None.
        label_columns: one column for each label, of zeros and ones, or of scores for `regression`. Without them and
            without a label column, all columns of zeros and ones for `multi_label_classification`.
        label_names: of labels in lists of zeros and ones, such as [1, 1, 0]; without them LABEL_0, LABEL_1, ... If all
            of them are columns, and there is no label column, those are the `label_columns`.
        problem_type: one of Hugging Face's. A label is the name of a class (of a number, its digits), for
            `multi_label_classification` a list of such names, and for `regression` a finite number or a list of them.
            `bert_jax.data.readers.cells` has the details.
        label_separator: between the names of several classes in one field.
        split: of a dataset on the hub.
        encoding: of the files.
        header: whether the first line of a csv or tsv file names its columns. Otherwise they are "1", "2" and so on.
        guess_label: whether to find labels by common names too.
        trained_on: columns that a model was trained on, {role: name}; they are preferred to common names.
        on_columns: called with the columns before the rows are read, so that an error in a row can be understood.
        report: counts the rows and the changed labels.

    Returns:
        The examples in the order of the source, with label None in rows without one; and the columns.

    Raises:
        OSError, ValueError: no such source or column, or an invalid row; the message has file and line.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"`problem_type` must be one of {', '.join(PROBLEM_TYPES)}; got {problem_type!r}")
    report = ReadReport(source) if report is None else report
    origins = find_origins([source], split)
    encoding = codec(encoding)
    names = column_names(origins[0], encoding=encoding, header=header)
    named = _prefer((text_column, pair_column, label_column), trained_on, names, guess_label)
    if guess_label and not label_column and not label_columns:
        label_columns = _trained_flags(trained_on, names)
    columns = _find_columns(origins[0], names, named, header, guess_label and not label_columns)
    require_columns(name_of(origins[0]), label_columns, names)
    several = problem_type == "multi_label_classification"
    flags = tuple(label_columns)
    if several and guess_label and not flags and columns.label is None:
        known = label_names and set(label_names) <= set(names)
        flags = tuple(label_names) if known else _find_flags(origins[0], columns, encoding, header)
    if flags:
        columns = replace(columns, label=None, flags=flags, classes=None if problem_type == "regression" else flags)
    if on_columns is not None:
        on_columns(columns)
    report.columns = columns.by_role
    label_in = _label_reader(columns, problem_type, label_separator)
    examples: list[TextExample] = []
    for origin in origins:
        note_separator(origin, report, encoding=encoding, header=header)
        rows = read_rows(origin, columns.names, encoding=encoding, header=header)
        examples += _examples(rows, columns, label_in, report)
    if not examples:
        raise no_rows(source)
    return _name_sets(examples, columns, label_names, report) if several else (examples, columns)


def _examples(
    rows: Iterable[tuple[str, Row]],
    columns: TextColumns,
    label_in: Callable[[Row, str], Label | None],
    report: ReadReport,
) -> Iterator[TextExample]:
    """Yields the examples in rows, given what returns the label of a row."""
    for where, row in rows:
        report.rows += 1
        text = require_text(row, columns.text, where)
        pair = None if columns.pair is None else require_text(row, columns.pair, where)
        yield TextExample(text, pair, label_in(row, where), where)


def _prefer(
    named: tuple[str | None, str | None, str | None], trained_on: Mapping[str, str], names: Sequence[str], label: bool
) -> tuple[str | None, str | None, str | None]:
    """Returns the columns that are named, else those that a model was trained on, if the table has them."""
    text, pair, label_column = named
    has_texts = all(trained_on[role] in names for role in ("text", "pair") if role in trained_on)
    if text is None and pair is None and has_texts:
        text = trained_on.get("text")
        pair = trained_on.get("pair")
    if label_column is None and label and trained_on.get("label") in names:
        label_column = trained_on["label"]
    return text, pair, label_column


def _trained_flags(trained_on: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns, one for each label, that a model was trained on, if the table has them; see `by_role`."""
    flags = tuple(trained_on.get("label", "").split(_BETWEEN_FLAGS))
    return flags if len(flags) > 1 and set(flags) <= set(names) else ()


def _label_reader(columns: TextColumns, problem_type: str, separator: str) -> Callable[[Row, str], Label | None]:
    """Returns a function from a row and its place to its label."""
    column = columns.label
    if column is None:
        return lambda row, where: _label_of_flags(row, columns.flags, problem_type, where) if columns.flags else None
    parsed: dict[str, Label | None] = {}  # of cells with texts, most of which repeat

    def label_in(row: Row, where: str) -> Label | None:
        cell = row[column]
        if isinstance(cell, str) and cell in parsed:
            return parsed[cell]
        label = parse_label(cell, problem_type, separator, f"{where}: {column!r}")
        if isinstance(cell, str):
            parsed[cell] = label
        return label

    return label_in


def _label_of_flags(row: Row, flags: Sequence[str], problem_type: str, where: str) -> Label | None:
    """Returns the label in columns of zeros and ones, or of scores."""
    if problem_type == "regression":
        scores = [parse_label(row[column], problem_type, "", f"{where}: {column!r}") for column in flags]
        return None if None in scores else tuple(score(one, where) for one in scores)
    ones = read_flags(row, flags, where)
    if ones is None or problem_type == "multi_label_classification":
        return ones
    if len(ones) != 1:
        raise ValueError(f"{where}: {len(ones)} of the label columns are 1; a single label needs exactly one")
    return ones[0]


def _name_sets(
    examples: list[TextExample], columns: TextColumns, names: Sequence[str], report: ReadReport
) -> tuple[list[TextExample], TextColumns]:
    """Returns examples whose label is a set of names, each once, also if they were lists of zeros and ones."""
    lists = [example.label for example in examples if isinstance(example.label, tuple)]
    sets: Any = [tuple(map(str, one)) for one in lists]
    multi_hot = not columns.flags and columns.classes is None and are_multi_hot(sets, names)
    if multi_hot:
        names = tuple(names) or tuple(f"LABEL_{index}" for index in range(max(map(len, sets))))
        columns = replace(columns, classes=tuple(names))
    named = []
    for example in examples:
        label: Any = example.label
        if multi_hot and label:
            report.change("lists of zeros and ones, one for each label", example.where)
            label = names_of_ones(label, names, f"{example.where}: {columns.label!r}")
        elif multi_hot:
            label = None  # neither zeros nor ones: the labels are not known
        named.append(replace(example, label=None if label is None else tuple(dict.fromkeys(label))))
    return named, columns


def _find_flags(origin: Origin, columns: TextColumns, encoding: str, header: bool) -> tuple[str, ...]:
    """Returns the columns that hold only zeros and ones, of which there must be two."""
    rows = [row for _, row in islice(read_rows(origin, encoding=encoding, header=header), SAMPLE)]
    taken = {columns.text, columns.pair}
    names = [name for name in rows[0] if name not in taken and name.strip().lower() not in ROW_NUMBERS]
    known = {name: [row[name] for row in rows if name in row and not is_missing(row[name])] for name in names}
    flags = tuple(name for name, cells in known.items() if cells and all(map(is_flag, cells)))
    return flags if len(flags) > 1 else ()


def _find_columns(
    origin: Origin,
    names: Sequence[str],
    named: tuple[str | None, str | None, str | None],
    header: bool,
    guess_label: bool,
) -> TextColumns:
    """Returns the columns that are named, and finds the others among `names`."""
    require_columns(name_of(origin), [name for name in named if name is not None], names)
    text_column, pair_column, label_column = named
    by_lower_name = {name.lower(): name for name in reversed(names)}
    free = {lower: name for lower, name in by_lower_name.items() if name not in named}
    if label_column is None and guess_label:
        label_column = next((free[name] for name in LABELS if name in free), None)
    if text_column is None:
        text_column, guessed_pair = _guess_texts(free)
        pair_column = pair_column or guessed_pair
    if header and looks_unseparated(origin, names) and named[0] is None:
        raise ValueError(
            f"{name_of(origin)}: one column called {names[0]!r}; name it with `text_column` if it is a text"
        )
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
