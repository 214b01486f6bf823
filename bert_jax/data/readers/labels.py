"""Turns labels into arrays: class names into ids, sets of names into zeros and ones, scores into numbers.

The three problems are those of Hugging Face's `problem_type`. Equal numbers have one name, however a file spells them:
a column of 0.0 and 1.0 has the classes "0" and "1". So do truth values: `True` is "true". Names are never merged
otherwise: the codes 401, 401.0 and 401.9 are three classes.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bert_jax.data.readers.cells import WORDS_FOR_MISSING
from bert_jax.data.readers.examples import ChoiceExample, Label, TaggedExample, TextExample
from bert_jax.data.readers.report import ReadReport

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_PLAIN_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,15})(\.\d+)?([eE][+-]?\d+)?")  # 007 is a code, not a number
_TRUTH = frozenset({"true", "false"})
UNLABELLED = "rows without a label"
WITHOUT_GOLD = "rows with the label '-', on which the annotators did not agree"
INFERENCE = {"entailment", "neutral", "contradiction"}  # the classes of SNLI and MultiNLI


def canonical(name: str) -> str:
    """Returns one spelling of equal numbers and truth values: 1.0 and +1 -> 1, 0.50 -> 0.5, TRUE -> true."""
    if name.lower() in _TRUTH:
        return name.lower()
    if not _PLAIN_NUMBER.fullmatch(name) or not math.isfinite(float(name)):
        return name
    number = float(name)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def clean_labels(
    examples: Sequence[TextExample],
    names: Sequence[str] | None,
    report: ReadReport,
    *,
    numbered: bool = False,
    drop: bool = True,
) -> list[TextExample]:
    """Returns the examples that have labels, with one spelling for each class.

    `NA`, `N/A`, `None` and `null` are no label among `names` without them, or if all other labels are numbers.
    Otherwise they are classes, and the report says so. `-` is no label in SNLI and MultiNLI.

    Args:
        names: of the classes; None takes them from the examples.
        report: counts the rows that are left out, and the labels that are spelled differently.
        numbered: whether 0, 1, ... stand for `names` too.
        drop: whether rows without a label are left out; otherwise they get the label None.

    Raises:
        ValueError: no example has a label.
    """
    found: set[str] = set()
    for example in examples:
        found.update(_texts_in(example.label))
    words = {label for label in found if label.lower() in WORDS_FOR_MISSING}
    if names is not None:
        spelled = _spellings(names)
        if numbered:
            spelled = {str(number): name for number, name in enumerate(names)} | spelled
        missing = {word for word in words if word not in spelled}
    else:
        others = found - words
        missing = words if others and all(map(_PLAIN_NUMBER.fullmatch, others)) else set()
        spelled = _own_spellings(found - missing)
    no_gold = _no_gold(found, names, report)
    missing |= no_gold
    name_of = {label: _lookup(label, spelled) or label for label in found - missing}
    reasons = _reasons(name_of, words)
    kept = []
    for example in examples:
        label = example.label
        if label is None or label in missing:
            if drop:
                report.skip(WITHOUT_GOLD if label in no_gold else UNLABELLED, example.where)
            else:
                kept.append(replace(example, label=None))
            continue
        changed = [one for one in _texts_in(label) if one in reasons] if reasons else []
        for one in changed:
            report.change(reasons[one], example.where)
        kept.append(replace(example, label=_renamed(label, name_of)) if changed else example)
    if not kept:
        raise no_label(examples[0], report.columns.get("label"))
    return kept


def _no_gold(found: Collection[str], names: Sequence[str] | None, report: ReadReport) -> set[str]:
    """Returns the label `-` of SNLI and MultiNLI if it is among the labels, or nothing.

    Those datasets are recognized by the name of their column, or by their three classes.

    References: the README files of SNLI 1.0 and MultiNLI 1.0: pairs on which the annotators did not agree.
    """
    if "-" not in found or (names is not None and "-" in names):
        return set()
    others = set(names or found) - {"-"}
    in_gold_label = report.columns.get("label", "").lower() == "gold_label"
    return {"-"} if in_gold_label or {name.lower() for name in others} == INFERENCE else set()


def _texts_in(label: Label | None) -> tuple[str, ...]:
    """Returns the names of classes in a label; none of them are scores."""
    labels = label if isinstance(label, tuple) else (label,)
    return tuple(one for one in labels if isinstance(one, str))


def _reasons(name_of: Mapping[str, str], words: Collection[str]) -> dict[str, str]:
    """Returns {label: what to report about it} for the labels that are renamed or may mean a missing value."""
    renamed = sorted(label for label, name in name_of.items() if name != label)
    if not renamed and not words:
        return {}
    example = renamed[0] if renamed else ""  # one line for all of them
    spelling = f"labels spelled in one way for all files, such as {example!r} as {name_of.get(example)!r}"
    reasons = {label: f"rows with {label!r}, which is read as a class" for label in words if label in name_of}
    return reasons | dict.fromkeys(renamed, spelling)


def _renamed(label: Label, name_of: Mapping[str, str]) -> Label:
    if isinstance(label, str):
        return name_of[label]
    return tuple(dict.fromkeys(name_of[one] for one in _texts_in(label))) if isinstance(label, tuple) else label


def _lookup(label: str, spelled: Mapping[str, str]) -> str | None:
    """Returns the name that a label stands for; None if it is none of them."""
    return spelled.get(label) or spelled.get(canonical(label))


def _own_spellings(found: Collection[str]) -> dict[str, str]:
    """Returns {label: name} for labels that decide the names themselves."""
    plain = {label: canonical(label) for label in found}
    names = set(plain.values())
    if names <= _TRUTH:
        return plain
    if not all(map(_PLAIN_NUMBER.fullmatch, found)):
        return {label: label for label in found}
    merges_codes = len(names) < len(found) and not all(float(name).is_integer() for name in names)
    return {label: label for label in found} if merges_codes else plain


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """Returns {spelling: name} with the canonical spelling of each name that no other name shares.

    Placeholder names (LABEL_0, LABEL_1, ...: Hugging Face's names for unnamed classes) are also spelled 0, 1, ...
    """
    counts = Counter(map(canonical, names))
    spelled = {canonical(name): name for name in names if counts[canonical(name)] == 1}
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        spelled |= {str(number): name for number, name in enumerate(names)}
    return spelled | {name: name for name in names}


def label_names(
    examples: Sequence[TextExample] | Sequence[TaggedExample], given: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their ids.

    Numbers are sorted by value: labels 0, 1, 2 have the ids 0, 1, 2; labels -1 and 1 have 0 and 1; one to five stars
    have 0 to 4; 0.5, 1.5 and 10 have 0 to 2.

    Args:
        examples: the training examples.
        given: names in a fixed order, from a model's `config.json` or a dataset. They must include all names in the
            examples.

    Returns:
        `given`, or if that is None the names in the examples, sorted.

    Raises:
        ValueError: an example without a label or with one that is not given, fewer than two classes, a duplicate name.
    """
    found: set[str] = set()
    for name, where in _names_in(examples):
        if given is not None and name not in given:
            raise _unknown(name, given, where)
        found.add(name)
    several = any(isinstance(example.label, tuple) for example in examples if not isinstance(example, TaggedExample))
    if len(found) < (1 if several else 2):
        where = f"{examples[0].where} to {examples[-1].where}" if examples else "no examples"
        raise ValueError(f"{where}: needs at least two classes, got {', '.join(found) or 'none'}")
    if given is not None:
        if len(set(given)) < len(given):
            raise ValueError(f"duplicate class name in {', '.join(given)}")
        return tuple(given)
    if all(map(_NUMBER.fullmatch, found)):
        return tuple(sorted(found, key=lambda name: (float(name), name)))
    return tuple(sorted(found))


def _names_in(examples: Sequence[TextExample] | Sequence[TaggedExample]) -> Iterator[tuple[str, str]]:
    """Yields every class name in the examples with its place."""
    for example in examples:
        labels = example.tags if isinstance(example, TaggedExample) else example.label
        if labels is None:
            if isinstance(example, TaggedExample):
                raise ValueError(f"{example.where}: no tags")
            raise no_label(example)
        for label in labels if isinstance(labels, tuple) else (labels,):
            if not isinstance(label, str):
                raise ValueError(f"{example.where}: {label!r} is a score, not a class")
            yield label, example.where


def no_label(example: TextExample | ChoiceExample, column: str | None = None) -> ValueError:
    """Returns the error for an example that needs a label; for the first one if no row has a label in `column`."""
    if column is not None:
        return ValueError(f"{example.where}: no label in {column!r}, and none in the other rows")
    why = "its cell is empty, or `label_column` was not named when the examples were read"
    return ValueError(f"{example.where}: no label ({why})")


def _ids(names: Sequence[str]) -> dict[str, int]:
    """Returns {spelling: id}."""
    return {spelling: names.index(name) for spelling, name in _spellings(names).items()}


def _unknown(name: str, names: Sequence[str], where: str) -> ValueError:
    return ValueError(f"{where}: label {name!r} is not one of {', '.join(names)}")


def encode_classes(examples: Sequence[TextExample], names: Sequence[str]) -> np.ndarray:
    """Returns the ids of the examples' classes, int32 [n].

    Args:
        names: of the classes, in the order of their ids. If they are LABEL_0, LABEL_1, ... (Hugging Face's names for
            unnamed classes), the numbers are accepted too.

    Raises:
        ValueError: an example without a label, or with one of another kind or not among `names`; with its place.
    """
    ids = _ids(names)
    found = []
    for example in examples:
        for name, where in _names_in([example]):
            if name not in ids:
                raise _unknown(name, names, where)
        if isinstance(example.label, tuple):
            raise ValueError(f"{example.where}: needs one class, got {example.label}")
        found.append(ids[str(example.label)])
    return np.array(found, np.int32)


def encode_label_sets(examples: Sequence[TextExample], names: Sequence[str]) -> np.ndarray:
    """Returns the examples' sets of labels as zeros and ones, float32 [n, C]; see `encode_classes`."""
    ids = _ids(names)
    labels = np.zeros((len(examples), len(names)), np.float32)
    for row, example in zip(labels, examples, strict=True):
        for name, where in _names_in([example]):
            if name not in ids:
                raise _unknown(name, names, where)
            row[ids[name]] = 1
    return labels


def encode_scores(examples: Sequence[TextExample]) -> np.ndarray:
    """Returns the examples' scores, float32 [n, C]; C is 1 if each example has one score.

    Raises:
        ValueError: an example without a label, with a class, or with another number of scores; with its place.
    """
    scores = []
    for example in examples:
        if example.label is None:
            raise no_label(example)
        scores.append(example.label if isinstance(example.label, tuple) else (example.label,))
        if any(isinstance(score, str) for score in scores[-1]):
            raise ValueError(f"{example.where}: {example.label!r} is a class, not a score")
        if len(scores[-1]) != len(scores[0]):
            raise ValueError(f"{example.where}: {len(scores[-1])} scores, {examples[0].where} has {len(scores[0])}")
    return np.array(scores, np.float32).reshape(len(scores), -1)
