"""Turns labels into arrays: class names into ids, sets of names into zeros and ones, scores into numbers.

The three problems are those of Hugging Face's `problem_type`.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from bert_jax.data.readers.examples import ChoiceExample, TaggedExample, TextExample

_WHOLE_NUMBER = re.compile(r"-?\d+")


def label_names(
    examples: Sequence[TextExample] | Sequence[TaggedExample], given: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their ids.

    Whole numbers are sorted by value: labels 0, 1, 2 have the ids 0, 1, 2; labels -1 and 1 have 0 and 1; one to five
    stars have 0 to 4.

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
    if all(_WHOLE_NUMBER.fullmatch(name) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
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


def no_label(example: TextExample | ChoiceExample) -> ValueError:
    """Returns the error for an example that needs a label."""
    return ValueError(f"{example.where}: no label (name its column with `label_column` when the examples are read)")


def _ids(names: Sequence[str]) -> dict[str, int]:
    ids = {name: number for number, name in enumerate(names)}
    if all(name == f"LABEL_{number}" for name, number in ids.items()):
        ids |= {str(number): number for number in ids.values()}  # placeholder names: the data may use the numbers
    return ids


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
