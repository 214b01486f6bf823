"""Texts with several continuations of which one is right: SWAG, and tables made like it.

References: Zellers et al., SWAG: A Large-Scale Adversarial Dataset for Grounded Commonsense Inference, 2018; Lai et
al., RACE: Large-scale ReAding Comprehension Dataset From Examinations, 2017.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bert_jax.data.readers.examples import ChoiceExample
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import Origin, Row, column_names, name_of, no_rows, read_rows, require_columns
from bert_jax.data.readers.texts import class_name, given_text

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = ("startphrase", "sent1", "ctx", "question", "premise", "text", "sentence")
CHOICE_LISTS = ("endings", "choices", "options")
Named = tuple[str | None, str | None, tuple[str, ...], str | None]  # columns of text, lead, choices and label
NUMBERED_CHOICE = re.compile(r"(ending|choice|option|sol)_?(\d+)")


@dataclass(frozen=True)
class ChoiceColumns:
    """Where in a table the texts, their continuations and the number of the right one are.

    Attributes:
        lead: what every continuation begins with, as in SWAG, whose second sentence is begun in `sent2`; or None.
        choices: a column each, or the one that holds lists of them.
        label: None where there is none.
    """

    text: str
    lead: str | None
    choices: tuple[str, ...]
    label: str | None


def find_choice_columns(
    source: str,
    *,
    text_column: str | None = None,
    lead_column: str | None = None,
    choice_columns: Sequence[str] = (),
    label_column: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
    guess_label: bool = True,
) -> ChoiceColumns:
    """Finds the columns of a source: `ending0`, `ending1`, ... or a list in `endings`, and a text.

    In SWAG's own tables, which have both `sent1` and `sent2`, the text is `sent1` and `sent2` leads the endings.

    Args:
        guess_label: whether a label is looked for where its column is not named.

    Raises:
        OSError, ValueError: no such source, no such column, none that is known to hold a text or continuations.
    """
    named = text_column, lead_column, tuple(choice_columns), label_column
    return _find_columns(find_origins([source], split)[0], named, codec(encoding), guess_label)


def _find_columns(origin: Origin, named: Named, encoding: str, guess_label: bool) -> ChoiceColumns:
    names = column_names(origin, encoding=encoding)
    text_column, lead, choices, label_column = named
    require_columns(name_of(origin), [name for name in (text_column, lead, *choices, label_column) if name], names)
    choices = choices or _find_choices(names)
    if text_column is None and {"sent1", "sent2"} <= set(names):
        text_column, lead = "sent1", lead or "sent2"
    text_column = text_column or next((name for name in TEXTS if name in names), None)
    for found, wanted in ((choices, "continuations (ending0, ending1, ...)"), (text_column, "text")):
        if not found:
            flag = "--choice-columns" if found is choices else "--text-column"
            ways = f"There are {', '.join(names)}; name them with {flag}"
            raise ValueError(f"{name_of(origin)}: which columns hold the {wanted}? {ways}")
    assert text_column
    guessed = "label" if guess_label and "label" in names else None
    return ChoiceColumns(text_column, lead, choices, label_column or guessed)


def _find_choices(names: Sequence[str]) -> tuple[str, ...]:
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if found := NUMBERED_CHOICE.fullmatch(name):
            numbered.setdefault(found[1], []).append((int(found[2]), name))
    if numbered:
        return tuple(name for _, name in sorted(max(numbered.values(), key=len)))
    return next(((name,) for name in CHOICE_LISTS if name in names), ())


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
) -> list[ChoiceExample]:
    """Reads texts with continuations, equally many everywhere.

    Args:
        source: a file, a pattern of files, or a dataset on the hub, as in `swag:regular`.
        text_column: this and those below, where they are not given, are what `find_choice_columns` finds.
        lead_column: what every continuation begins with.
        choice_columns: a column for each continuation, or one that holds lists of them.
        label_column: the right continuation's number, from 0, or its letter, from A, as RACE has it.
        split: of a dataset on the hub.
        encoding: of the files.
        guess_label: whether a label is looked for where its column is not named.

    Returns:
        The examples in the order of their source; where a row has no label, that is None.

    Raises:
        OSError, ValueError: with a line that says what was wanted, what came, and where.
    """
    origins, encoding = find_origins([source], split), codec(encoding)
    named = text_column, lead_column, tuple(choice_columns), label_column
    columns = _find_columns(origins[0], named, encoding, guess_label)
    wanted = [name for name in (columns.text, columns.lead, *columns.choices, columns.label) if name]
    examples: list[ChoiceExample] = []
    for origin in origins:
        for where, row in read_rows(origin, wanted, encoding=encoding):
            choices = _choices_in(row, columns, where)
            if len(choices) != len(examples[0].choices if examples else choices):
                raise ValueError(f"{where}: {len(choices)} choices, {examples[0].where} has {len(examples[0].choices)}")
            label = _label_in(row, columns.label, len(choices), where) if columns.label else None
            examples.append(ChoiceExample(given_text(row, columns.text, where), choices, label, where))
    if not examples:
        raise no_rows(source)
    return examples


def _choices_in(row: Row, columns: ChoiceColumns, where: str) -> tuple[str, ...]:
    listed = row[columns.choices[0]]
    choices = listed if isinstance(listed, list) else [row[name] for name in columns.choices]
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{where}: wanted two texts or more to choose from in {columns.choices[0]!r}, got {choices}")
    lead = given_text(row, columns.lead, where) if columns.lead else ""
    return tuple(f"{lead} {choice}".strip() if lead else choice for choice in choices)


def _label_in(row: Row, column: str, count: int, where: str) -> int | None:
    if row[column] is None or not (name := class_name(row[column], f"{where}: {column!r}")):
        return None
    letters = string.ascii_uppercase[:count]
    if len(name) == 1 and name in letters:
        return letters.index(name)
    if not name.isdecimal() or int(name) >= count:
        kinds = f"a number from 0 to {count - 1} or a letter from A to {letters[-1]}"
        raise ValueError(f"{where}: {column!r} is not {kinds} but {name!r}")
    return int(name)
