"""What a cell of a label column means; every reader of labels asks here.

| cell | meaning |
|---|---|
| null; NaN; an empty or blank text; `nan`, `NaN`, `<NA>`, `NaT`, `#N/A`, `\\N` | no label |
| `NA`, `N/A`, `None`, `null` | no label among numbers, otherwise a class with this name; see `labels.py` |
| `-` | no label in SNLI and MultiNLI, otherwise a class; see `labels.py` |
| 1, 1.0 | the class "1" |
| 0.5 | the class "0.5"; the score 0.5 |
| true | the class "true" |
| a text | a class, without surrounding space; "1.0" and "True" are spelled like 1.0 and true; see `labels.py` |
| a list, or a text that looks like one: `['a', 'b']`, `["a"]`, `[1, 0]`, `[1 0]`, `{'a', 'b'}` | several labels |

The texts for "no label" are those that pandas, R, Excel and MySQL write and that are no words.
"""

import ast
import math
import re
import warnings
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from bert_jax.data.readers.examples import Label

_MISSING = frozenset(
    {"", "nan", "-nan", "<na>", "nat", "#n/a", "#na", "#n/a n/a", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "\\n"}
)
WORDS_FOR_MISSING = frozenset({"na", "n/a", "none", "null"})  # a country, a stance, ...: they may be classes
_BRACKETS = frozenset({"[]", "()", "{}"})
# A quoted text, a comma, or a word. The comma and spaces inside quotes belong to the text.
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|,|[^\s,'"]+""")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_SEVERAL = "; for several labels use `problem_type=multi_label_classification`"


def is_missing(value: Any) -> bool:
    """Returns whether a cell holds no label."""
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def class_name(value: Any, where: str) -> str:
    """Returns the name of a class: a text without surrounding space, or the digits of a whole number.

    Raises:
        ValueError: the value is something else.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value).strip()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))  # pandas stores whole numbers with missing values as floats
    hints = {list: _SEVERAL, float: "; for scores use `problem_type=regression`"}
    raise ValueError(f"{where} is not a class: {value!r:.60}{hints.get(type(value), '')}")


def parse_label(value: Any, problem_type: str, separator: str, where: str) -> Label | None:
    """Returns the label in a cell, in the form of the problem; None if there is none.

    Args:
        problem_type: for `single_label_classification` the label is the name of a class, for
            `multi_label_classification` a tuple of names in the order of the cell, and for `regression` a finite number
            or a tuple of them.
        separator: between several names in one text that does not look like a list.

    Raises:
        ValueError: the cell holds something else.
    """
    if problem_type == "multi_label_classification":
        # An empty text has no labels; a missing value is not known to have none.
        missing = is_missing(value) and not (isinstance(value, str) and not value.strip())
        return None if missing else tuple(_names_in(value, separator, where))
    if is_missing(value):
        return None
    listed = parse_list(value, where) if isinstance(value, str) else None
    if problem_type == "regression":
        if isinstance(value, str) and value.strip().lower() in WORDS_FOR_MISSING:
            return None
        value = value if listed is None else listed
        return tuple(score(part, where) for part in value) if isinstance(value, list) else score(value, where)
    if listed is not None:
        raise ValueError(f"{where} is not a class: {value!r:.60}{_SEVERAL}")
    if isinstance(value, float | Decimal) and math.isfinite(value) and value != int(value):
        return repr(float(value))
    return class_name(value, where)


def _names_in(value: Any, separator: str, where: str) -> list[str]:
    """Returns the names in a cell of several labels; those of zeros and ones repeat."""
    parts: Sequence[Any] | None = value if isinstance(value, list) else None
    if isinstance(value, str):
        parts = parse_list(value, where)
        if parts is None:
            return [part.strip() for part in value.split(separator) if part.strip()]
    names = [class_name(part, where) for part in ([value] if parts is None else parts)]
    return [name for name in names if name]


def parse_list(text: str, where: str) -> list[Any] | None:
    """Returns the items of a text that looks like a list, as Python, JSON and numpy write it; None for other texts.

    Quoted items are texts; others are numbers where they can be. A text in square brackets without quotes, commas or
    numbers, such as `[other]`, is no list; one in other brackets needs quotes.

    Raises:
        ValueError: a list that was cut off with `...`, as numpy prints long ones.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in _BRACKETS or len(text) < 2:
        return None
    inner = text[1:-1].strip()
    tokens = _TOKEN.findall(inner)
    if not tokens:
        return [] if text[0] == "[" else None
    if _TOKEN.sub("", inner).strip():  # a quote without its other end
        return None
    words = [token for token in tokens if token != ","]
    quoted = [word for word in words if word[0] in "'\""]
    numbers = [word for word in words if _NUMBER.fullmatch(word)]
    if any(word[0] == ":" for word in words) or not (quoted or text[0] == "["):
        return None  # a dict, or words in brackets
    if "..." in words:
        raise ValueError(f"{where} is a list that was cut off: {text!r:.60}")
    if "," not in tokens:
        return [_item([word]) for word in words] if quoted or len(numbers) == len(words) else None
    groups: list[list[str]] = [[]]
    for token in tokens:
        if token == ",":
            groups.append([])
        else:
            groups[-1].append(token)
    return [_item(group) for group in groups if group]


def _item(words: list[str]) -> Any:
    """Returns one item of a list: a text, a number or a truth value."""
    word = " ".join(words)
    if word[0] in "'\"":
        return _unquoted(word)
    if word.lower() in {"true", "false"}:
        return word.lower() == "true"
    if re.fullmatch(r"[+-]?\d{1,4000}", word):
        return int(word)
    return float(word) if _NUMBER.fullmatch(word) else word


def _unquoted(token: str) -> str:
    if "\\" not in token:
        return token[1:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know, as in '\d'
        try:
            return ast.literal_eval(token)
        except (ValueError, SyntaxError):
            return token[1:-1]


def score(value: Any, where: str) -> float:
    """Returns a finite number; raises ValueError for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where} is not a finite number: {value!r:.60}")
    return number
