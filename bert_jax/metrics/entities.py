"""Precision, recall and F1 of entities: a prediction is right if its kind, its first and its last word are right.

`tag_schemes.py` says what a tag means. Tags are read leniently, like the CoNLL script and seqeval by default. `B`
begins an entity, and so does `I` without an entity of its kind before it; an entity ends where another begins, or at
`O`. So `I-per I-per B-per I-loc` has three entities. `S` is an entity of one word and `E` the last word of one. A tag
without a letter (`per`) is a kind, and neighbours of one kind are one entity.

References: Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003; Nakayama, seqeval, 2018.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from bert_jax.metrics.tag_schemes import OUTSIDE, TagScheme, read_tag_scheme


class Entity(NamedTuple):
    """The words start <= i < stop of a sentence."""

    kind: str
    start: int
    stop: int


class Counts(NamedTuple):
    """The numbers of correct predictions, of predictions and of gold entities."""

    correct: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        """The fraction of predictions that are correct; 0 without predictions."""
        return self.correct / max(self.predicted, 1)

    @property
    def recall(self) -> float:
        """The fraction of gold entities that are found; 0 without gold entities."""
        return self.correct / max(self.gold, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 0 without correct predictions."""
        return 2 * self.correct / max(self.predicted + self.gold, 1)


def find_entities(tags: Sequence[str], scheme: TagScheme | None = None) -> list[Entity]:
    """Returns the entities of a sentence in order.

    Args:
        scheme: of the tags; None recognises it from this sentence alone.

    >>> find_entities(["B-per", "I-per", "O", "I-loc", "I-per"])
    [Entity(kind='per', start=0, stop=2), Entity(kind='loc', start=3, stop=4), Entity(kind='per', start=4, stop=5)]
    """
    scheme = scheme or read_tag_scheme(tags)
    entities: list[Entity] = []
    last_role = OUTSIDE
    last_kind = ""
    for index, name in enumerate(tags):
        role, kind = scheme[name]
        if role == OUTSIDE:
            pass
        elif last_role == OUTSIDE or kind != last_kind or role in "BS" or last_role in "ES":
            entities.append(Entity(kind, index, index + 1))
        else:
            entities[-1] = entities[-1]._replace(stop=index + 1)
        last_role = role
        last_kind = kind
    return entities


def count_entities(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], scheme: TagScheme | None = None
) -> dict[str, Counts]:
    """Counts the entities of each kind, in alphabetical order; `total` adds them up.

    Args:
        predicted, gold: tags of each sentence.
        scheme: of the tags; None recognises it from all of them.

    Raises:
        ValueError: a different number of sentences, or of words in a sentence; tags of no scheme.
    """
    scheme = scheme or read_tag_scheme(chain(*predicted, *gold))
    if len(predicted) != len(gold):
        raise ValueError(f"{len(gold)} sentences, and predictions for {len(predicted)}")
    correct = Counter[str]()
    guessed = Counter[str]()
    present = Counter[str]()
    for number, (guess, truth) in enumerate(zip(predicted, gold, strict=True)):
        if len(guess) != len(truth):
            raise ValueError(f"sentence {number} has {len(truth)} words, and predictions for {len(guess)}")
        guesses = find_entities(guess, scheme)
        truths = find_entities(truth, scheme)
        guessed.update(entity.kind for entity in guesses)
        present.update(entity.kind for entity in truths)
        correct.update(entity.kind for entity in set(guesses) & set(truths))
    return {
        kind: Counts(correct[kind], guessed[kind], present[kind]) for kind in sorted(guessed.keys() | present.keys())
    }


def total(counts: dict[str, Counts]) -> Counts:
    """Returns the sum of the counts of all kinds, for micro-averaged precision, recall and F1."""
    return Counts(*(sum(column) for column in zip(Counts(0, 0, 0), *counts.values(), strict=True)))
