"""Sequences equal those of the tokenizer for the same texts one by one."""

import numpy as np
import pytest
import small_pipelines as small
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.finetuning.sequences import encode_choices, encode_texts
from bert_jax.data.readers.examples import ChoiceExample, TextExample

WORDS = " ".join(small.LINES).split()
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
CONTROL = "\x00\x07"  # which the tokenizer drops


def rows(tokenizer, text, pair, max_length):
    """The ids and the beginning of segment B, by the tokenizer's own way."""
    (encoding,) = tokenizer.encode_batch([text], None if pair is None else [pair], max_length=max_length)
    return encoding.ids, len(encoding) - sum(encoding.type_ids)


def check(sequences, expected):
    assert len(sequences) == len(expected)
    assert sequences.ids.dtype == sequences.second.dtype == np.int32
    assert sequences.offsets.dtype == np.int64
    assert sequences.offsets[0] == 0
    assert sequences.offsets[-1] == len(sequences.ids)
    for number, (ids, second) in enumerate(expected):
        begin, end = sequences.offsets[number : number + 2]
        assert sequences.ids[begin:end].tolist() == ids
        assert sequences.second[number] == second
        assert sequences.lengths[number] == len(ids)


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=5), st.integers(5, 23))
def test_texts_are_encoded_and_truncated_like_the_tokenizer_does(pairs, max_length):
    tokenizer = small.tokenizer()
    examples = [TextExample(text, pair, None, f"line {i}") for i, (text, pair) in enumerate(pairs)]
    sequences, cut = encode_texts(examples, tokenizer, max_length=max_length)
    check(sequences, [rows(tokenizer, text, pair, max_length) for text, pair in pairs])
    excess = [len(rows(tokenizer, text, pair, None)[0]) - max_length for text, pair in pairs]
    assert cut == (sum(tokens > 0 for tokens in excess), sum(tokens for tokens in excess if tokens > 0))


def test_texts_without_tokens_are_sequences_too():
    tokenizer = small.tokenizer()
    texts = ["", CONTROL, "   ", "an \ud800 owl"]
    sequences, cut = encode_texts([TextExample(text, None, None, "") for text in texts], tokenizer, max_length=7)
    empty = [tokenizer.cls_id, tokenizer.sep_id], 2
    check(sequences, [empty, empty, empty, rows(tokenizer, "an \ufffd owl", None, None)])
    assert cut == (0, 0)


def test_each_choice_is_paired_with_its_text():
    tokenizer = small.tokenizer()
    examples = [
        ChoiceExample(text, ("it flew", "", small.LONG), 0, "") for text in (small.SHORT, "", small.MIDDLE, "owl")
    ]
    sequences, cut = encode_choices(examples, tokenizer, max_length=17)
    check(sequences, [rows(tokenizer, one.text, choice, 17) for one in examples for choice in one.choices])
    lengths = [len(rows(tokenizer, one.text, choice, None)[0]) for one in examples for choice in one.choices]
    assert cut == (6, sum(max(0, length - 17) for length in lengths))


@given(st.lists(st.integers(0, 3), max_size=9))
def test_any_sequences_are_taken_in_any_order(numbers):
    examples = [
        TextExample(text, pair, None, "") for text, pair in (("owl", None), ("", None), ("it flew", "at night"))
    ]
    sequences, _ = encode_texts([*examples, *examples], small.tokenizer(), max_length=11)
    taken = sequences.take(numbers)
    check(
        taken,
        [
            (sequences.ids[sequences.offsets[i] : sequences.offsets[i + 1]].tolist(), sequences.second[i])
            for i in numbers
        ],
    )


def test_no_examples_give_no_sequences():
    for encode in (encode_texts, encode_choices):
        sequences, cut = encode([], small.tokenizer(), max_length=7)
        check(sequences, [])
        assert cut == (0, 0)


def test_invalid_examples_are_errors():
    two, three = (ChoiceExample("owl", ("a",) * number, None, f"swag.csv:{number}") for number in (2, 3))
    with pytest.raises(ValueError, match=r"swag.csv:3: 3 choices, swag.csv:2 has 2"):
        encode_choices([two, three], small.tokenizer(), max_length=7)
    with pytest.raises(ValueError, match=r"`max_length` must be at least 5, .* got 4"):
        encode_choices([two], small.tokenizer(), max_length=4)
    with pytest.raises(ValueError, match=r"`max_length` must be at least 3, .* got 2"):
        encode_texts([TextExample("owl", None, None, "")], small.tokenizer(), max_length=2)
