"""Sentences are the same for paragraphs, wrapped text and one sentence per line."""

import re
import textwrap
from collections.abc import Callable

import pytest

from bert_jax.text import sentences as module
from bert_jax.text.sentences import split_sentences

# The share of all boundaries, found or wanted, on which the splitter and a reader must agree. It does on 41 of 45
# (sentencex 1.0.32); splitting after every stop, question and exclamation mark does on fewer than NAIVE.
AGREEMENT, NAIVE = 0.9, 0.7

# Written for this test; "|" is a boundary. Spaces join sentences, except in Chinese and Japanese.
GOLD = {
    "en": [
        "Dr. Smith came to the U.S. in 1999.|He paid $3.50, i.e. very little.|It was enough.",
        "J. R. R. Tolkien wrote it at 5 p.m. on Monday.|Then he slept.",
        "See Fig. 3, e.g. the left half.|It is clear.",
        'He said, "Stop."|Then he left.',
        '"Really?" she asked.|"Yes!" he said.',
        "I waited... and waited.|Nobody came.",
        "The rate rose by 2.5 percent to 10.75.|Prices fell.",
        "Mr. and Mrs. Jones live at No. 4 Elm St. in Boston.|They are rich.",
        "Is it late?|No!|What?!|Go.",
        "It opens at 9 a.m. and closes at 6 p.m. on Fridays.|Come early.",
        "Visit www.example.com for more.|It is free.",
        "Acme Inc. bought Widget Corp. last year.|Nobody noticed.",
        "Prof. Lee et al. found it in vol. 2, pp. 3-7.|We did not.",
        "It was cold (about 3 deg.) outside.|We stayed in.",
        "The U.S. Army left.|Peace came.",
        "She moved to Washington, D.C. in May.|He stayed.",
        "(He knew it.)|We did not.",
        "Wait for me!|I am coming.|Don't go...",
    ],
    "de": [
        "Am 3. Oktober kam Dr. Müller z. B. nach Berlin.|Er blieb bis ca. 5 Uhr.|Das war gut!",
        "„Wirklich?“ fragte sie.|Er nickte.",
        "Das kostet 3,50 Euro bzw. 4 Dollar.|Das ist viel.",
    ],
    "fr": [
        "Il est arrivé à 8 h.|Puis il est parti.",
        "Elle a dit : « Bonjour ! »|Il n'a rien répondu.",
        "Le prix est de 3,50 euros.|C'est cher !",
    ],
    "es": [
        "El Sr. García llegó a las 5 p.m. con su hijo.|¿Cómo estás?|¡Muy bien!",
        "La Dra. López vive en Madrid.|Trabaja mucho.",
    ],
    "zh": ["今天天气很好。|我们去公园吧！|你想去吗？", "他说：“好的。”|然后就走了。"],  # noqa: RUF001
    "ja": ["今日は天気がいい。|公園に行きましょう！|本当ですか？", "彼は「はい。」と言った。|それだけだ。"],  # noqa: RUF001
    "ru": ["Он родился в 1990 г. в Москве.|Там он и живёт.", "А. С. Пушкин писал стихи.|Их любят все!"],  # noqa: RUF001
    "hi": ["यह एक वाक्य है।|यह दूसरा वाक्य है।|क्या तुम आओगे?"],
}

STORY = [
    "He came in the evening, when Dr. Brown had already left.",
    "Nobody knew where he had been.",
    "He said nothing about it, and we did not ask him whether the consul, whom we all knew, had sent for him.",
    "Why should we?",
    "Later it came out that he had paid $3.50 at 5 p.m. near the old bridge, where it is always dark.",
]
CHINESE = ["今天天气很好我们去公园吧。", "你想去吗。", "他说好的然后就走了没有再回来。"]


def boundaries(sentences: list[str]) -> set[int]:
    """The letters, spaces left out, before each boundary inside a text."""
    lengths = [len("".join(sentence.split())) for sentence in sentences]
    return {sum(lengths[:i]) for i in range(1, len(lengths))}


def agreement(split: Callable[[str, str], list[str]]) -> float:
    both = either = 0
    for language, documents in GOLD.items():
        for document in documents:
            wanted = document.split("|")
            found = split(("" if language in ("zh", "ja") else " ").join(wanted), language)
            both += len(boundaries(found) & boundaries(wanted))
            either += len(boundaries(found) | boundaries(wanted))
    return both / either


def test_boundaries_are_where_a_reader_puts_them():
    assert agreement(lambda text, language: split_sentences(text, language=language)) >= AGREEMENT
    assert agreement(lambda text, _: re.split(r"(?<=[.!?。！？।])\s*", text)) < NAIVE  # noqa: RUF001


def test_the_language_decides_what_is_an_abbreviation():
    text = "Am 3. Oktober kam er. Er blieb."
    assert split_sentences(text, language="de") == ["Am 3. Oktober kam er.", "Er blieb."]
    assert split_sentences(text, language="en") != split_sentences(text, language="de")


def test_a_language_without_rules_is_split_as_english():
    assert split_sentences(" ".join(STORY), language="tlh") == split_sentences(" ".join(STORY))


@pytest.mark.parametrize("width", [31, 47, 72, 113])
def test_wrapping_a_document_changes_nothing(width):
    wrapped = textwrap.fill(" ".join(STORY), width)
    assert split_sentences(wrapped) == STORY
    assert split_sentences(f"\n{wrapped}\n".replace("\n", "\r\n")) == STORY


def test_text_edited_after_it_was_wrapped_is_still_wrapped():
    wrapped = textwrap.fill(" ".join(STORY * 3), 61).replace("whether", "if").replace("nothing", "nil")
    expected = [sentence.replace("whether", "if").replace("nothing", "nil") for sentence in STORY]
    assert split_sentences(wrapped) == expected * 3


@pytest.mark.parametrize("width", [5, 7, 11])
def test_chinese_is_wrapped_between_characters(width):
    text = "".join(CHINESE)
    wrapped = "\n".join(text[i : i + width] for i in range(0, len(text), width))
    assert split_sentences(wrapped, language="zh") == CHINESE


def test_a_heading_over_wrapped_text_stays_a_line_of_its_own_paragraph():
    text = f"The Consul\n\n{textwrap.fill(' '.join(STORY), 53)}"
    assert split_sentences(text) == ["The Consul", *STORY]


def test_a_line_is_a_sentence_where_lines_are_not_wrapped():
    lines = ["no stops here", "a second line which is longer", "short", "and one more of them", "the end"]
    assert split_sentences("\n".join(lines)) == lines
    assert split_sentences("\n".join(STORY)) == STORY


def test_chinese_lines_of_many_lengths_are_not_taken_for_wrapped():
    lines = ["好" * length for length in (20, 17, 17, 17, 5)]
    assert split_sentences("\n".join(lines), language="zh") == lines


def test_a_long_line_is_a_paragraph_even_if_the_next_would_not_have_fitted():
    lines = ["one long line without a stop " * 9, "another one"]
    assert split_sentences("\n".join(lines)) == [line.strip() for line in lines]


def test_running_paragraphs_a_line_each_are_split_inside():
    paragraphs = [" ".join(STORY), " ".join(STORY[:2]), " ".join(STORY[1:]), " ".join(STORY[2:])]
    expected = [*STORY, *STORY[:2], *STORY[1:], *STORY[2:]]
    assert split_sentences("\n".join(paragraphs)) == expected


@pytest.mark.parametrize("gap", ["\n\n", "\n \t\n", "\r\n\r\n", "\n\n\n\n"])
def test_a_blank_line_ends_a_sentence_without_a_stop(gap):
    assert split_sentences(f"{gap}one without a stop{gap}and another{gap}") == ["one without a stop", "and another"]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\r\n \t\n"])
def test_an_empty_text_has_no_sentences(text):
    assert split_sentences(text) == []


def test_no_character_is_lost():
    for text in ("\n".join(STORY), textwrap.fill(" ".join(STORY), 41), " \n".join(STORY) + "\n\n  x y\n"):
        assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "unit",
    [
        "He said, “stop it. And he went on. ",
        "« Oui. Non. ",
        "„Nein. ",
        '"So. ',
        "(see. ",
        "no stop ",
        "x",
        "กำ",
        "好。",
        "“",
    ],
)
def test_long_text_is_split_in_bounded_pieces_and_linear_time(monkeypatch, unit):
    segment = module.segment
    given = []
    monkeypatch.setattr(module, "LONGEST_PIECE", 997)
    monkeypatch.setattr(module, "segment", lambda language, text: given.append(len(text)) or segment(language, text))
    text = unit * (41 * 997 // len(unit))
    sentences = split_sentences(text)
    assert max(given) <= 997
    assert sum(given) <= 3 * len(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert max(map(len, sentences)) <= 997


def test_a_cut_sentence_is_cut_between_words_or_whole_characters(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_PIECE", 11)
    assert split_sentences("the sea and the sky and so on") == ["the sea", "and the", "sky and so", "on"]
    assert split_sentences("กำกี" * 5, language="th") == ["กำกีกำกีกำ", "กีกำกีกำกี"]


def test_a_long_paragraph_has_the_sentences_of_a_short_one(monkeypatch):
    """As long as a piece ends outside quotes."""
    text = " ".join(STORY * 31)
    whole = split_sentences(text)
    monkeypatch.setattr(module, "LONGEST_PIECE", 499)
    assert split_sentences(text) == whole == STORY * 31
    assert split_sentences(f"{text}\n\nThe end.\n\n{text}") == [*whole, "The end.", *whole]
