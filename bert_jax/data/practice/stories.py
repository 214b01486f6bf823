"""Short stories from templates: text that a small model learns in a minute, without a download or a licence.

A story has one topic (a pet, a market, a school, ...) and one cast: persons, places and things that keep their names.
So a masked name can be read elsewhere in the story, a next sentence shares names with the one before, names can be
tagged, and questions have answers in the text. Story i is a function of the language, the seed and i alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bert_jax.data.practice import english, indonesian
from bert_jax.data.practice.grammar import Fact, Grammar
from bert_jax.data.readers.examples import Answer, Question, TaggedExample

Language = Literal["id", "en"]
GRAMMARS = {"id": indonesian.GRAMMAR, "en": english.GRAMMAR}
PIECES = re.compile(r"\{(\w+)\}|\[([^\]]*)\]")
WORDS = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")
TAGS = {"person": "person", "city": "place", "group": "organization"}
PRONOUNS = {"he": ("he", "she"), "him": ("him", "her"), "his": ("his", "her")}


@dataclass(frozen=True)
class Sentence:
    """A sentence of a story in pieces: text, and the slot that it came from or None."""

    pieces: tuple[tuple[str, str | None], ...]
    fact: Fact

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)

    def find(self, slot: str) -> Answer:
        """Returns the first place of a slot's value."""
        index = [name for _, name in self.pieces].index(slot)
        return Answer(self.pieces[index][0], sum(len(text) for text, _ in self.pieces[:index]))


@dataclass(frozen=True)
class Story:
    """Sentences about one topic; `cast` has the values of the slots."""

    topic: str
    sentences: tuple[Sentence, ...]
    cast: Mapping[str, str] = field(repr=False)


def practice_documents(language: Language, count: int = 4_000, seed: int = 0) -> list[str]:
    """Returns stories as documents, one sentence per line: about 60 words each.

    Raises:
        ValueError: another language than `id` and `en`.
    """
    stories = (tell_story(language, seed, index) for index in range(count))
    return ["\n".join(sentence.text for sentence in story.sentences) for story in stories]


def practice_names(language: Language, count: int = 1_500, seed: int = 0) -> list[TaggedExample]:
    """Returns sentences with tags for names: `B-person`, `I-person`, `B-place`, `B-organization`, ... and `O`.

    Raises:
        ValueError: another language than `id` and `en`.
    """
    examples = []
    for index in range(count):
        random = _random(seed, index, 1)
        sentences = tell_story(language, seed, index).sentences
        words, tags = _tagged(sentences[random.integers(len(sentences))])
        examples.append(TaggedExample(words, tags, f"practice:{language}-names:{index + 1}"))
    return examples


def practice_questions(language: Language, count: int = 2_000, seed: int = 0) -> list[Question]:
    """Returns questions about stories; each answer is a span of its story.

    Raises:
        ValueError: another language than `id` and `en`.
    """
    questions = []
    for index in range(count):
        random = _random(seed, index, 2)
        story = tell_story(language, seed, index)
        asked = [(number, *pair) for number, told in enumerate(story.sentences) for pair in told.fact.questions]
        number, template, slot = asked[random.integers(len(asked))]
        texts = [sentence.text for sentence in story.sentences]
        found = story.sentences[number].find(slot)
        answer = Answer(found.text, sum(len(text) + 1 for text in texts[:number]) + found.start)
        question = "".join(piece for piece, _ in _realize(template, story.cast, random))
        place = f"practice:{language}-questions:{index + 1}"
        questions.append(Question(f"{language}-{seed}-{index}", question, " ".join(texts), (answer,), False, place))
    return questions


def tell_story(language: Language, seed: int, index: int) -> Story:
    """Returns story `index`: an opening, then at least half of the topic's facts."""
    grammar = _grammar(language)
    random = _random(seed, index, 0)
    name = list(grammar.topics)[random.integers(len(grammar.topics))]
    topic = grammar.topics[name]
    told = random.integers((len(topic.facts) + 1) // 2, len(topic.facts) + 1)
    kept = sorted(random.permutation(len(topic.facts))[:told])
    facts = [topic.opening[random.integers(len(topic.opening))], *(topic.facts[i] for i in kept)]
    cast = _draw_cast(grammar, random)
    sentences = (Sentence(_realize(fact.sentence, cast, random), fact) for fact in facts)
    return Story(name, tuple(sentences), cast)


def _grammar(language: str) -> Grammar:
    if language not in GRAMMARS:
        raise ValueError(f"`language` of the practice data must be 'id' or 'en', got {language!r}")
    return GRAMMARS[language]


def _random(seed: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, index]))


def _draw_cast(grammar: Grammar, random: np.random.Generator) -> dict[str, str]:
    """Draws two different words for each slot, `city` and `city2`."""
    cast = {}
    for slot, words in grammar.words.items():
        first, second = random.permutation(len(words))[:2]
        cast |= {slot: words[first], f"{slot}2": words[second]}
    woman = cast["person"] in grammar.women
    return cast | {word: forms[woman] for word, forms in PRONOUNS.items()}


def _realize(template: str, cast: Mapping[str, str], random: np.random.Generator) -> tuple[tuple[str, str | None], ...]:
    """Fills a template; the first letter becomes a capital."""
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for match in PIECES.finditer(template):
        slot, choices = match.groups()
        options = (choices or "").split("|")
        text = cast[slot] if slot else options[random.integers(len(options))]
        pieces += [(template[end : match.start()], None), (text, slot)]
        end = match.end()
    pieces.append((template[end:], None))
    pieces = [piece for piece in pieces if piece[0]]
    text, slot = pieces[0]
    return ((text[0].upper() + text[1:], slot), *pieces[1:])


def _tagged(sentence: Sentence) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the words of a sentence, punctuation among them, and their tags."""
    words: list[str] = []
    tags: list[str] = []
    for text, slot in sentence.pieces:
        kind = TAGS.get((slot or "").rstrip("2"))
        for position, word in enumerate(WORDS.findall(text)):
            words.append(word)
            tags.append(f"{'I' if position else 'B'}-{kind}" if kind else "O")
    return tuple(words), tuple(tags)
