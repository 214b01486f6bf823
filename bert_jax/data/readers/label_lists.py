"""Reads several labels per row that are written as zeros and ones: lists of them, or one column for each label.

Example: with the labels toxic, obscene and threat, `[1, 1, 0]` (multi-hot, as for the `Trainer` of transformers) and a
row of a table with `toxic,obscene,threat` of `1,1,0` both mean toxic and obscene.
"""

from collections.abc import Sequence
from typing import Any

from bert_jax.data.readers.cells import class_name, is_missing
from bert_jax.data.readers.labels import canonical
from bert_jax.data.readers.tables import Row

_ON = frozenset({"1", "true"})
_OFF = frozenset({"0", "false"})


def are_multi_hot(lists: Sequence[tuple[str, ...]], names: Sequence[str]) -> bool:
    """Returns whether lists hold a zero or a one for each label, rather than the names of labels.

    Empty lists say nothing about that. The others do if they have one length of at least two, or if one of them repeats
    a value, which a set of labels does not. If `names` are known and include "0" and "1", the length must also be their
    number: with the labels 0, 1 and 2 the list [0, 1] is the set of two labels.
    """
    filled = [tuple(map(canonical, one)) for one in lists if one]
    if not filled or not all(name in _ON | _OFF for one in filled for name in one):
        return False
    if any(len(set(one)) < len(one) for one in filled):
        return True
    lengths = set(map(len, filled))
    return len(lengths) == 1 and max(lengths) > 1 and (not {"0", "1"} <= set(names) or lengths == {len(names)})


def names_of_ones(values: Sequence[str], names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the names of the labels whose value is a one.

    Raises:
        ValueError: another number of values than of names.
    """
    if len(values) != len(names):
        raise ValueError(f"{where}: {len(values)} zeros and ones for {len(names)} labels ({', '.join(names)})")
    return tuple(name for name, value in zip(names, values, strict=True) if canonical(value) in _ON)


def read_flags(row: Row, columns: Sequence[str], where: str) -> tuple[str, ...] | None:
    """Returns the columns that hold a one; None if one of them has a missing value.

    Raises:
        ValueError: a column holds something else than 0, 1, false or true.
    """
    if any(is_missing(row[column]) for column in columns):
        return None
    for column in columns:
        if not is_flag(row[column]):
            raise ValueError(f"{where}: {column!r} is not 0 or 1 but {row[column]!r:.60}")
    return tuple(column for column in columns if canonical(class_name(row[column], where)) in _ON)


def is_flag(value: Any) -> bool:
    """Returns whether a cell holds a zero, a one or a truth value, as a number or as text."""
    try:
        return canonical(class_name(value, "")) in _ON | _OFF
    except ValueError:
        return False
