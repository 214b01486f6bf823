"""What a language brings to the stories: words for the slots of templates, and topics made of facts.

A template such as `{person} lives [now|still] in {city}.` has slots, drawn once per story, and choices, drawn once per
sentence. `{city2}` is another city than `{city}`. `{he}`, `{him}` and `{his}` agree with `{person}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A sentence, and the questions that it answers: pairs of a question and the slot that is its answer."""

    sentence: str
    questions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, sentence: str, *questions: tuple[str, str]) -> "Fact":
        return cls(sentence, questions)


@dataclass(frozen=True)
class Topic:
    """What stories are about.

    Attributes:
        opening: how stories begin; one is chosen.
        facts: how they go on; most of them are told, in this order.
    """

    opening: tuple[Fact, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Grammar:
    """The words and topics of a language.

    Attributes:
        words: the values of each slot.
        topics: by name.
        women: the persons with the second form of `PRONOUNS`.
    """

    words: Mapping[str, tuple[str, ...]]
    topics: Mapping[str, Topic]
    women: frozenset[str] = frozenset()
