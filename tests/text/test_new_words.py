"""New words are those that save the most tokens, in one form with the tokenizer, and single tokens once added."""

import re
from collections import Counter

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.text import new_words as module
from bert_jax.text.new_words import VocabularyReport, find_new_words, read_new_words
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import split_words, with_tokens, wordpiece
from bert_jax.text.word_cache import separable

PIECES = ["an", "owl", "qu", "##ok", "##ka", "##kas", *"abs", *(f"##{letter}" for letter in "abs")]


def tokenizer(**options):
    return Tokenizer(wordpiece(PIECES, **{"lowercase": True, "strip_accents": None, **options}))


@pytest.fixture(scope="module")
def small():
    return tokenizer()


def larger(old, words):
    return old.with_settings(with_tokens(old.backend, words))


# Found


def test_the_words_that_save_the_most_tokens_come_first(small):
    texts = [
        "quokka " * 7,  # 3 pieces: 14
        "Quokkas, " * 6,  # 3 pieces: 12
        "ab\n" * 13,  # 2 pieces: 13
        "ba\t" * 13,  # 13 as well, and "ab" is before "ba"
        "€ " * 15,  # [UNK] of one character: 15
        "zzz." * 5,  # [UNK] of three: 15, and "zzz" is before "€"
    ]
    found = find_new_words(texts, small, 99)
    assert found == ["zzz", "€", "quokka", "ab", "ba", "quokkas"]
    assert find_new_words(iter(texts), small, 3) == found[:3]


def test_known_rare_and_meaningless_words_are_not_found(small):
    texts = ["owl an quokka , . $ ! « ½ 17 २०२४ \u0301 " * 9, "ab " * 4, "x" * 101 + " " + "x" * 101]
    assert find_new_words(texts, small, 99) == ["quokka"]
    assert find_new_words(texts, small, 99, min_frequency=4) == ["quokka", "ab"]


def test_words_are_those_of_the_tokenizer():
    texts = ["Ab 東東 QUOKKA-café"] * 5
    assert find_new_words(texts, tokenizer(), 9) == ["cafe", "quokka", "東", "ab"]
    cased = tokenizer(lowercase=False)
    assert find_new_words(texts, cased, 9) == ["QUOKKA", "café", "Ab", "東"]
    spaces = tokenizer()
    spaces.backend.normalizer = None
    spaces.backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    assert find_new_words(["Ab ab-s ##zz"] * 5, spaces, 9) == ["ab-s", "Ab"]


def test_a_count_of_words_must_be_positive(small):
    with pytest.raises(ValueError, match="`count` of new words must be at least 1, got 0"):
        find_new_words(["ab"], small, 0)


BACKENDS = [tokenizer().backend, tokenizer(lowercase=False, strip_accents=True, chinese=False).backend]
OTHER = tokenizer().backend
OTHER.pre_tokenizer = tokenizers.pre_tokenizers.Punctuation()  # words with spaces
ODD = "\u0301\u00a0\x00\x1c\x85\u2028\u200d\ufffd"  # an accent, spaces, control characters
CHARACTERS = st.one_of(st.sampled_from("aAbé É.,'-_ \t\n\r京ßςΣ" + ODD), st.characters(exclude_categories=["Cs"]))


@settings(max_examples=100)
@given(st.lists(st.text(CHARACTERS), max_size=7))
def test_words_are_counted_as_if_each_text_were_split(texts):
    for backend in [*BACKENDS, OTHER]:
        wanted = Counter(word for text in texts for word in split_words(backend, text))
        found = module._count_words(texts, backend).to_pydict()
        assert dict(zip(*found.values(), strict=True)) == wanted


# Read


def write(tmp_path, content):
    path = tmp_path / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_words_are_read_as_the_tokenizer_normalizes_them(small, tmp_path):
    path = write(tmp_path, "\ufeffQuokka\r\n\n ab \n\tCafé\nquokka\n  \n2024\n")
    read = read_new_words(path, small)
    assert read.words == ("quokka", "ab", "cafe", "2024")
    assert read.as_dict() == {"file": str(path), "words": 4, "blank_lines": 2, "repeated": 1, "normalized": 2}
    assert read.lines() == [
        f"{path}: 4 new words, 2 blank lines skipped, 1 repeated word skipped, 2 words normalized as in texts"
    ]
    assert read_new_words(path, tokenizer(lowercase=False)).words == ("Quokka", "ab", "Café", "quokka", "2024")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ab\nan owl\n", "words.txt:2: 'an owl' holds white space; a new word must be one word"),
        ("ab\u2028s\n", r"words.txt:1: 'ab\u2028s' holds white space"),
        ("ab\n\nOwl\nquokka\nan\n", "words.txt:3: 'owl' is in the vocabulary already; so are 'an' (line 5)"),
        ("owl\n", "words.txt:1: 'owl' is in the vocabulary already"),
        (
            "an\nowl\nqu\na\nb\ns\nab\n[UNK]",
            "words.txt:8: [UNK] is a special token",
        ),
        (
            "an\nowl\nqu\na\nowl\nb\ns\nab\n",
            "words.txt:1: 'an' is in the vocabulary already; so are 'owl' (line 2), 'qu' (line 3), 'a' (line 4), "
            "'b' (line 6), 's' (line 7)",
        ),
        ("", "words.txt: no words; one word per line is expected"),
        (" \n\n", "words.txt: no words; one word per line is expected"),
        ("ab\nb-52\n", "words.txt:2: the tokenizer splits 'b-52' into 'b - 52'; a new word must be one word"),
        ("東京", "words.txt:1: the tokenizer splits '東京' into '東 京'"),
        ("##ing", "words.txt:1: the tokenizer splits '##ing' into '# # ing'"),
        ("[MASK]", "words.txt:1: [MASK] is a special token"),
        ("\u200b", "words.txt:1: nothing is left of '\\u200b' when the tokenizer normalizes it"),
        ("ab\n" + "x" * 101, "has 101 characters; the tokenizer reads words of up to 100"),
        (b"ab\ncaf\xe9\n", "words.txt:2: not UTF-8: invalid continuation byte"),
    ],
)  # fmt: skip
def test_lines_that_are_no_new_words_are_named(content, message, small, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_new_words(write(tmp_path, content), small)
    assert "\n" not in str(caught.value)


def test_pieces_are_no_words_for_a_tokenizer_that_splits_at_spaces(tmp_path):
    spaces = tokenizer()
    spaces.backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    assert read_new_words(write(tmp_path, "covid-19"), spaces).words == ("covid-19",)
    with pytest.raises(ValueError, match="'##zz' begins with ##, which marks a piece, not a word"):
        read_new_words(write(tmp_path, "##zz"), spaces)


# Measured


def test_the_report_counts_pieces_and_unknown_words_before_and_after(small):
    texts = ["Quokkas owl zzz !", "quokka an"]  # 3 + 1 + 1 + 1 and 3 + 1 tokens, 2 of them [UNK]
    report = VocabularyReport.of(texts, small, larger(small, ["quokka", "zzz"]))
    assert report == VocabularyReport(2, words=6, tokens_before=10, tokens_after=7, unknown_before=2, unknown_after=1)
    assert report.line() == (
        "vocabulary: 2 new words: 1.67 -> 1.17 pieces per word, [UNK] 20.00% -> 14.29% of the tokens"
    )
    assert report.as_dict()["tokens_after"] == 7
    assert (
        VocabularyReport.of([], small, small)
        .line()
        .endswith("0.00 -> 0.00 pieces per word, [UNK] 0.00% -> 0.00% of the tokens")
    )


def test_the_report_reads_a_sample(small, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_CHARACTERS", 5)
    read = []
    report = VocabularyReport.of((read.append(text) or text for text in ["an owl", "an", "an"]), small, small)
    assert (report.words, read) == (2, ["an owl", "an"])


@settings(max_examples=50)
@given(st.lists(st.text("abs", min_size=1, max_size=4), min_size=1, max_size=30))
def test_adding_the_words_that_are_found_saves_their_tokens(words):
    """Without words that begin with one another, exactly the score: occurrences x (pieces - 1)."""
    old = tokenizer()
    found = find_new_words([" ".join(words)], old, 3, min_frequency=1)
    grown = larger(old, found)
    assert separable(grown.backend)
    assert [grown.tokens[i] for i in grown.encode_flat(found)[0]] == found
    report = VocabularyReport.of([" ".join(words)], old, grown)
    saved = sum(words.count(word) * (len(word) - 1) for word in found)  # a piece for each letter
    assert report.words == len(words)
    assert report.tokens_before - report.tokens_after >= saved
