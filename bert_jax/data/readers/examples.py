"""What fine-tuning learns from: the examples of each kind of task, as they were read.

Labels keep the form they have in their source: class names, numbers, offsets of characters. `where` names an example's
source, as in `train.tsv:17` or `nyu-mll/glue:17`, for every later message about it.
"""

from __future__ import annotations

from dataclasses import dataclass

Label = str | float | tuple[str, ...] | tuple[float, ...]


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, to be classified or scored.

    Attributes:
        label: The name of its class, its score, the names of all its classes or several scores; None where unlabelled.
    """

    text: str
    pair: str | None
    label: Label | None
    where: str


@dataclass(frozen=True)
class TaggedExample:
    """A sentence of words, each with its tag, as in `B-person`; `tags` is None where the words are untagged."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    where: str


@dataclass(frozen=True)
class Answer:
    """A span of a context: its text, and the character at which it starts; -1 where the context does not hold it."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        answers: Spans of the context, all of them right; empty where none is known.
        impossible: Whether the context is known not to answer.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    impossible: bool
    where: str


@dataclass(frozen=True)
class ChoiceExample:
    """A text and its possible continuations; `label` is the index of the right one, None where unlabelled."""

    text: str
    choices: tuple[str, ...]
    label: int | None
    where: str
