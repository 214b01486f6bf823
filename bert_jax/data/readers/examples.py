"""The examples of each fine-tuning task, as they were read.

Labels keep the form of their source: class names, numbers, character offsets. `where` is an example's place in its
source, as in `train.tsv:17` or `nyu-mll/glue:17`, for error messages.
"""

from dataclasses import dataclass

IGNORED_TAG = "-100"  # the tag of a word without a label, as in PyTorch and Hugging Face

Label = str | float | tuple[str, ...] | tuple[float, ...]


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, to classify or to score.

    Attributes:
        label: its class, its score, all its classes or several scores; None without a label.
    """

    text: str
    pair: str | None
    label: Label | None
    where: str


@dataclass(frozen=True)
class TaggedExample:
    """A sentence of words, each with a tag such as `B-person`; `tags` is None without tags.

    A word with the tag `IGNORED_TAG` is part of the text only: it has no label and does not count in the metrics.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    where: str


@dataclass(frozen=True)
class Answer:
    """A span of a context: its text and its first character, -1 if the context does not contain the text."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        answers: spans of the context, all of them right; empty if none is known.
        impossible: whether the question is known to have no answer in the context.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    impossible: bool
    where: str


@dataclass(frozen=True)
class ChoiceExample:
    """A text and its possible continuations; `label` is the index of the right one, None without a label."""

    text: str
    choices: tuple[str, ...]
    label: int | None
    where: str
