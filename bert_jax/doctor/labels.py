"""Label names that are probably a mistake in the data."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from bert_jax.data.readers.cells import WORDS_FOR_MISSING, is_missing

_NO_CLASS = frozenset({"?", "-"})  # what annotators write without a decision
_LIST = re.compile(r"[\[({].*[\])}]?|.*[\])}]", re.DOTALL)
_DEFAULT = re.compile(r"LABEL_\d+")


def suspicious_names(names: Sequence[str]) -> Iterator[str]:
    """Yields a line about each kind of mistake in the names of classes.

    The kinds are: a missing value read as a class, a piece of a list, names that differ in case or spaces only, and the
    names that a config.json without names gives.
    """
    missing = [name for name in names if is_missing(name) or name.strip().lower() in WORDS_FOR_MISSING | _NO_CLASS]
    if missing:
        yield f"a label that looks like a missing value: {_quoted(missing)}"
    lists = [name for name in names if _LIST.fullmatch(name.strip())]
    if lists:
        yield f"labels that look like pieces of a list: {_quoted(lists)}"
    same = defaultdict(list)
    for name in names:
        same[" ".join(name.casefold().split())].append(name)
    for variants in same.values():
        if len(variants) > 1:
            yield f"labels that differ in case or spaces only: {_quoted(variants)}"
    if names and all(_DEFAULT.fullmatch(name) for name in names):
        yield f"labels without names: {_quoted(names)}"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
