"""Labels as arrays: names of classes to ids, sets of names to zeros and ones, scores to numbers.

References: the kinds of problems are those of Hugging Face's `problem_type`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from bert_jax.data.readers.examples import TaggedExample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bert_jax.data.readers.examples import ChoiceExample, TextExample

_WHOLE_NUMBER = re.compile(r"-?\d+")


def label_names(
    examples: Sequence[TextExample] | Sequence[TaggedExample], given: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their ids.

    Whole numbers are names as well, in their own order: 0, 1 and 2 keep their meaning, and so do -1 and 1, or one to
    five stars, whose ids are 0 to 4.

    Args:
        examples: what is trained on.
        given: names whose order is fixed, as by a model's `config.json` or by a dataset. Those of the examples must be
            among them.

    Returns:
        `given`; where that is None, the names in the examples, sorted.

    Raises:
        ValueError: an example without a label, or with one that is not given; one class only; a name given twice.
    """
    found: set[str] = set()
    for name, where in _names_in(examples):
        if given is not None and name not in given:
            raise _unknown(name, given, where)
        found.add(name)
    several = any(isinstance(example.label, tuple) for example in examples if not isinstance(example, TaggedExample))
    if len(found) < (1 if several else 2):
        where = f"{examples[0].where} to {examples[-1].where}" if examples else "no examples"
        raise ValueError(f"{where}: wanted two classes or more, found {', '.join(found) or 'none'}")
    if given is not None:
        if len(set(given)) < len(given):
            raise ValueError(f"a class is named twice in {', '.join(given)}")
        return tuple(given)
    if all(_WHOLE_NUMBER.fullmatch(name) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def _names_in(examples: Sequence[TextExample] | Sequence[TaggedExample]) -> Iterator[tuple[str, str]]:
    """Every name of a class in the examples, with the place."""
    for example in examples:
        labels = example.tags if isinstance(example, TaggedExample) else example.label
        if labels is None:
            if isinstance(example, TaggedExample):
                raise ValueError(f"{example.where}: no tags")
            raise no_label(example)
        for label in labels if isinstance(labels, tuple) else (labels,):
            if not isinstance(label, str):
                raise ValueError(f"{example.where}: {label!r} is a score and no class")
            yield label, example.where


def no_label(example: TextExample | ChoiceExample) -> ValueError:
    """What to raise where a label is wanted and there is none."""
    return ValueError(f"{example.where}: no label (--label-column names its column)")


def _ids(names: Sequence[str]) -> dict[str, int]:
    ids = {name: number for number, name in enumerate(names)}
    if all(name == f"LABEL_{number}" for name, number in ids.items()):
        ids |= {str(number): number for number in ids.values()}  # no names were given, so numbers are meant
    return ids


def _unknown(name: str, names: Sequence[str], where: str) -> ValueError:
    return ValueError(f"{where}: the label {name!r} is none of {', '.join(names)}")


def encode_labels(examples: Sequence[TextExample], names: Sequence[str], problem_type: str) -> np.ndarray:
    """Returns the labels of examples as numbers.

    Args:
        names: of the classes, in the order of their ids; not looked at for regression. Where they are LABEL_0, LABEL_1
            and so on, as Hugging Face calls what nobody named, the numbers will do.
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.

    Returns:
        Ids int32 [n] of single labels; zeros and ones float32 [n, C] of several; scores float32 [n, C], where C is 1 if
        each example has one.

    Raises:
        ValueError: an example without a label, or with one that is none of `names` or of another kind, with its place.
    """
    for example in examples:
        if example.label is None:
            raise no_label(example)
    if problem_type == "regression":
        return _encode_scores(examples)
    ids, single = _ids(names), problem_type == "single_label_classification"
    found: list[list[int]] = []
    for example in examples:
        found.append([])
        for name, where in _names_in([example]):
            if name not in ids:
                raise _unknown(name, names, where)
            found[-1].append(ids[name])
        if single and isinstance(example.label, tuple):
            raise ValueError(f"{example.where}: wanted one class, got {example.label}")
    if single:
        return np.array(found, np.int32).reshape(-1)
    labels = np.zeros((len(examples), len(names)), np.float32)
    for row, some in zip(labels, found, strict=True):
        row[some] = 1
    return labels


def _encode_scores(examples: Sequence[TextExample]) -> np.ndarray:
    scores = []
    for example in examples:
        scores.append(example.label if isinstance(example.label, tuple) else (example.label,))
        if any(isinstance(score, str) for score in scores[-1]):
            raise ValueError(f"{example.where}: {example.label!r} is a class and no score")
        if len(scores[-1]) != len(scores[0]):
            raise ValueError(f"{example.where}: {len(scores[-1])} scores, {examples[0].where} has {len(scores[0])}")
    return np.array(scores, np.float32).reshape(len(scores), -1)
