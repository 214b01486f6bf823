"""Reads texts with several continuations, one of which is right: SWAG, and tables like it.

References: Zellers et al., SWAG: A Large-Scale Adversarial Dataset for Grounded Commonsense Inference, 2018; Lai et
al., RACE: Large-scale ReAding Comprehension Dataset From Examinations, 2017.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from bert_jax.data.readers.cells import class_name, is_missing, parse_list
from bert_jax.data.readers.examples import ChoiceExample
from bert_jax.data.readers.labels import canonical
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import (
    Origin,
    Row,
    column_names,
    name_of,
    no_rows,
    note_separator,
    read_rows,
    require_columns,
)
from bert_jax.data.readers.texts import require_text
from bert_jax.messages import counted

TEXTS = ("startphrase", "sent1", "ctx", "question", "premise", "text", "sentence")
CHOICE_LISTS = ("endings", "choices", "options")
NUMBERED_CHOICE = re.compile(r"(ending|choice|option|sol)_?(\d+)")


@dataclass(frozen=True)
class ChoiceColumns:
    """The columns of texts, continuations and labels in a table; None and () are not known yet.

    Attributes:
        text: the text.
        lead: the beginning of every continuation, as `sent2` in SWAG; None without one.
        choices: one column per continuation, or one column with lists of them.
        label: the index of the right continuation; None without labels.
    """

    text: str | None
    lead: str | None
    choices: tuple[str, ...]
    label: str | None

    @property
    def names(self) -> list[str]:
        """All columns that are known."""
        return [name for name in (self.text, self.lead, *self.choices, self.label) if name]

    @property
    def by_role(self) -> dict[str, str]:
        """The columns by their roles: {"text": "sent1", "choice 1": "ending0", "choice 2": "ending1"}."""
        numbered = {f"choice {number}": name for number, name in enumerate(self.choices, 1)}
        roles = {"text": self.text, "lead": self.lead, **numbered, "label": self.label}
        return {role: name for role, name in roles.items() if name}


def read_choices(
    source: str,
    *,
    text_column: str | None = None,
    lead_column: str | None = None,
    choice_columns: Sequence[str] = (),
    label_column: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
    guess_label: bool = True,
    trained_on: Mapping[str, str] = MappingProxyType({}),
    on_columns: Callable[[ChoiceColumns], object] | None = None,
    report: ReadReport | None = None,
) -> tuple[list[ChoiceExample], ChoiceColumns]:
    """Reads texts with continuations, the same number of them everywhere.

    Args:
        source: a file, a pattern of files, or a dataset on the hub, as in `swag:regular`.
        text_column: columns that are not named are found by common names: `ending0`, `ending1`, ... or a list in
            `endings`, and a text. In SWAG's tables, with `sent1` and `sent2`, the text is `sent1` and `sent2` leads.
        lead_column: the beginning of every continuation.
        choice_columns: one column per continuation, or one column with lists of them.
        label_column: the index of the right continuation, from 0, or its letter, from A, as in RACE.
        split: of a dataset on the hub.
        encoding: of the files.
        guess_label: whether to find the label by its common name too.
        trained_on: columns that a model was trained on, {role: name}; if the table has them all, those that are not
            named are found by their roles and not by common names.
        on_columns: called with the columns before the rows are read, so that an error in a row can be understood.
        report: counts the rows.

    Returns:
        The examples in the order of the source, with label None in rows without one; and the columns.

    Raises:
        OSError, ValueError: no such source or column, or an invalid row; the message has file and line.
    """
    origins = find_origins([source], split)
    encoding = codec(encoding)
    report = ReadReport(source) if report is None else report
    named = ChoiceColumns(text_column, lead_column, tuple(choice_columns), label_column)
    names = column_names(origins[0], encoding=encoding)
    columns = _find_columns(origins[0], names, _prefer(named, trained_on, names, guess_label), guess_label)
    report.columns = columns.by_role
    assert columns.text
    if on_columns is not None:
        on_columns(columns)
    examples: list[ChoiceExample] = []
    for origin in origins:
        note_separator(origin, report, encoding=encoding, header=True)
        for where, row in read_rows(origin, columns.names, encoding=encoding):
            report.rows += 1
            choices = _choices_in(row, columns, where)
            if examples and len(choices) != len(examples[0].choices):
                raise ValueError(
                    f"{where}: {counted(len(choices), 'choice')}, {examples[0].where} has {len(examples[0].choices)}"
                )
            label = _label_in(row, columns.label, len(choices), where) if columns.label else None
            examples.append(ChoiceExample(require_text(row, columns.text, where), choices, label, where))
    if not examples:
        raise no_rows(source)
    return examples, columns


def _prefer(
    named: ChoiceColumns, trained_on: Mapping[str, str], names: Sequence[str], guess_label: bool
) -> ChoiceColumns:
    """Returns the columns that are named, else those that a model was trained on, if the table has them."""
    label = trained_on.get("label") if guess_label and trained_on.get("label") in names else None
    texts = {role: name for role, name in trained_on.items() if role != "label"}
    if not texts or not set(texts.values()) <= set(names):
        return replace(named, label=named.label or label)
    choices = tuple(name for role, name in texts.items() if role.startswith("choice "))
    lead = named.lead or (texts.get("lead") if named.text is None else None)
    return ChoiceColumns(named.text or texts["text"], lead, named.choices or choices, named.label or label)


def _find_columns(origin: Origin, names: Sequence[str], named: ChoiceColumns, guess_label: bool) -> ChoiceColumns:
    """Returns the columns that are named, and finds the others among `names`."""
    require_columns(name_of(origin), named.names, names)
    text = named.text
    lead = named.lead
    if text is None and {"sent1", "sent2"} <= set(names):
        text = "sent1"
        lead = lead or "sent2"
    text = text or next((name for name in TEXTS if name in names), None)
    choices = named.choices or find_choices(names)
    for found, description, argument in (
        (choices, "continuations (ending0, ending1, ...)", "choice_columns"),
        (text, "text", "text_column"),
    ):
        if not found:
            remedy = f"There are {', '.join(names)}; name them with `{argument}`"
            raise ValueError(f"{name_of(origin)}: which columns hold the {description}? {remedy}")
    guessed_label = "label" if guess_label and "label" in names else None
    return ChoiceColumns(text, lead, choices, named.label or guessed_label)


def find_choices(names: Sequence[str]) -> tuple[str, ...]:
    """Returns numbered columns, of several series the longest, or the one that holds lists."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if found := NUMBERED_CHOICE.fullmatch(name):
            numbered.setdefault(found[1], []).append((int(found[2]), name))
    if numbered:
        return tuple(name for _, name in sorted(max(numbered.values(), key=len)))
    return next(((name,) for name in CHOICE_LISTS if name in names), ())


def _choices_in(row: Row, columns: ChoiceColumns, where: str) -> tuple[str, ...]:
    value = row[columns.choices[0]]
    listed = parse_list(value, where) if isinstance(value, str) and len(columns.choices) == 1 else None
    choices = value if isinstance(value, list) else listed or [row[name] for name in columns.choices]
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{where}: {columns.choices[0]!r} must hold at least two texts to choose from, got {choices}")
    lead = require_text(row, columns.lead, where) if columns.lead else ""
    return tuple(f"{lead} {choice}".strip() if lead else choice for choice in choices)


def _label_in(row: Row, column: str, count: int, where: str) -> int | None:
    """Returns the index of the right one of `count` choices; None if there is none."""
    if is_missing(row[column]):
        return None
    name = canonical(class_name(row[column], f"{where}: {column!r}"))
    letters = string.ascii_uppercase[:count]
    if len(name) == 1 and name in letters:
        return letters.index(name)
    if not name.isdecimal() or int(name) >= count:
        kinds = f"a number from 0 to {count - 1} or a letter from A to {letters[-1]}"
        raise ValueError(f"{where}: {column!r} must be {kinds}, got {name!r}")
    return int(name)
