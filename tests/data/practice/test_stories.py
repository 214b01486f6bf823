import re
from collections import Counter

import pytest

from bert_jax.data.practice import practice_documents, practice_names, practice_questions
from bert_jax.data.practice.grammar import Grammar
from bert_jax.data.practice.stories import GRAMMARS, PIECES, PRONOUNS, TAGS, tell_story

LANGUAGES = pytest.mark.parametrize("language", GRAMMARS)
SLOTS_OF_THE_CAST = set(PRONOUNS)


def templates(grammar: Grammar) -> list[str]:
    facts = [fact for topic in grammar.topics.values() for fact in (*topic.opening, *topic.facts)]
    return [text for fact in facts for text in (fact.sentence, *(question for question, _ in fact.questions))]


@LANGUAGES
def test_every_slot_has_words_and_every_answer_is_in_its_sentence(language):
    grammar = GRAMMARS[language]
    known = {f"{slot}{digit}" for slot in grammar.words for digit in ("", "2")} | SLOTS_OF_THE_CAST
    for template in templates(grammar):
        slots = {slot for slot, choices in PIECES.findall(template) if slot}
        assert slots <= known, template
        assert not re.search(r"[{}\[\]]", PIECES.sub("", template)), template
    for topic in grammar.topics.values():
        for fact in (*topic.opening, *topic.facts):
            assert {slot for _, slot in fact.questions} <= {slot for slot, _ in PIECES.findall(fact.sentence)}, fact
        assert all(any(fact.questions) for fact in topic.opening)  # so that every story has a question


@LANGUAGES
def test_a_story_is_a_function_of_its_number(language):
    few = practice_documents(language, 7)
    assert practice_documents(language, 11)[:7] == few
    assert practice_documents(language, 7, seed=1) != few
    assert len(set(practice_documents(language, 300))) == 300


@LANGUAGES
def test_topics_and_words_are_varied(language):
    stories = [tell_story(language, 0, index) for index in range(400)]
    topics = Counter(story.topic for story in stories)
    assert topics.keys() == GRAMMARS[language].topics.keys()
    assert max(topics.values()) < 2 * min(topics.values())
    words = {word for story in stories for sentence in story.sentences for word in sentence.text.split()}
    assert len(words) > 300
    assert all(sentence.text[0].isupper() and sentence.text[-1] == "." for one in stories for sentence in one.sentences)


@LANGUAGES
def test_names_are_tagged_and_nothing_else(language):
    grammar = GRAMMARS[language]
    names = {kind: {word for name in grammar.words[slot] for word in name.split()} for slot, kind in TAGS.items()}
    tagged = practice_names(language, 200)
    assert {tag for one in tagged for tag in one.tags} >= {"O", "B-person", "B-place", "B-organization", "I-place"}
    for example in tagged:
        assert len(example.words) == len(example.tags)
        for word, tag in zip(example.words, example.tags, strict=True):
            if tag != "O":
                assert word in names[tag[2:]]
            else:
                assert word not in names["person"] | names["place"]


@LANGUAGES
def test_answers_are_at_their_offsets(language):
    questions = practice_questions(language, 300)
    for question in questions:
        (answer,) = question.answers
        assert question.context[answer.start : answer.start + len(answer.text)] == answer.text
        assert question.question.endswith("?")
    assert len({question.id for question in questions}) == 300


def test_pronouns_agree_with_the_person():
    stories = [tell_story("en", 0, index) for index in range(300)]
    women = GRAMMARS["en"].women
    for story in stories:
        assert story.cast["he"] == ("she" if story.cast["person"] in women else "he")
    assert {story.cast["his"] for story in stories} == {"his", "her"}


def test_another_language_is_refused():
    with pytest.raises(ValueError, match="must be 'id' or 'en', got 'de'"):
        practice_documents("de", 1)
