"""Counts of parts of a corpus add up to those of the whole, and hold all that a tokenizer sees of it."""

import random
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.text import vocabulary, word_counts
from bert_jax.text.vocabulary import split_words, wordpiece
from bert_jax.text.word_counts import SCHEMA, count_words, merge_counts, normalized_counts

# What BERT's tokenizer treats in several ways: spaces that split, controls that vanish, words of one character.
CHARACTERS = "aB, \t\n\r\v\x1c\x1f\x85\u00a0\u2028\u200b\u0301éİ東\ufffd\ud800"
TEXTS = st.lists(st.text(CHARACTERS, max_size=13), max_size=11)


@pytest.fixture(autouse=True)
def small_tables(monkeypatch):
    """Texts are counted in several batches, and summed in several rounds, some words at a time."""
    monkeypatch.setattr(vocabulary, "BATCH_CHARACTERS", 7)
    monkeypatch.setattr(word_counts, "PENDING_ROWS", 3)
    monkeypatch.setattr(word_counts, "MAX_SUMMED_BYTES", 60)


@settings(deadline=None)
@given(TEXTS, st.integers(0, 10**6))
def test_counts_of_parts_sum_to_those_of_the_whole_in_any_order(texts, seed):
    whole = count_words(texts)
    chunks = "\n".join(texts).replace("\ud800", "\ufffd").replace("\t", " ").replace("\n", " ").replace("\r", " ")
    expected = Counter(chunk for chunk in chunks.split(" ") if chunk)
    assert whole.schema == SCHEMA
    assert whole.to_pydict() == {"word": sorted(expected), "count": [expected[word] for word in sorted(expected)]}
    shuffle = random.Random(seed)
    parts: list[list[str]] = [[] for _ in range(3)]
    for text in texts:
        shuffle.choice(parts).append(text)
    tables = [count_words(part) for part in parts]
    shuffle.shuffle(tables)
    assert merge_counts(tables).equals(whole)
    assert merge_counts([merge_counts(tables[:2]), tables[2]]).equals(whole)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("split_chinese", [True, False])
@settings(deadline=None)
@given(TEXTS)
def test_counted_words_are_split_as_texts_are(lowercase, split_chinese, texts):
    backend = wordpiece([], lowercase=lowercase, strip_accents=None)
    texts = [text.replace("\ud800", "") for text in texts]
    found = normalized_counts(count_words(texts, split_chinese=split_chinese), backend).to_pydict()
    assert dict(zip(*found.values(), strict=True)) == Counter(
        word for text in texts for word in split_words(backend, text)
    )


def test_counts_of_chinese_do_not_grow_with_the_text():
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 11)]
    draw = random.Random(5)
    texts = ["".join(draw.choices(characters, k=17)) for _ in range(97)]
    assert count_words(texts, split_chinese=True)["word"].to_pylist() == characters
    assert count_words(texts).num_rows == 97


def test_sums_above_32_bits_are_exact():
    table = pa.table({"word": ["owl"], "count": [2**40 + 1]}, schema=SCHEMA)
    assert merge_counts([table] * 5)["count"].to_pylist() == [5 * 2**40 + 5]
    assert merge_counts([]).equals(SCHEMA.empty_table())
