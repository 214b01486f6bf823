"""Rows of pretraining have the layout of any tokenizer, and whole words are masked by its marks."""

from functools import cache

import datasets
import numpy as np
import pytest
import tokenizer_kinds as kinds
from token_stores import store_of

from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows
from bert_jax.data.pretraining.long_sentences import count_long_sentences, split_long_sentences
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.data.pretraining.sequences import special_tokens
from bert_jax.data.pretraining.token_store import tokenize_corpus
from bert_jax.text.tokenizer import Tokenizer

KIND = pytest.mark.parametrize("kind", kinds.KINDS)
OBJECTIVE = pytest.mark.parametrize("objective", ["mlm-nsp", "mlm"])
T = 67


@cache
def tokenizer(kind):
    return Tokenizer(kinds.backend(kind))


@cache
def store(kind):
    draw = np.random.default_rng(3)
    texts = [sentence.split() for sentence in kinds.SENTENCES[:4]]

    def sentence():
        words = texts[draw.integers(4)]
        start = draw.integers(len(words) - 1)
        return " ".join(words[start : start + draw.integers(1, 7)])

    ours = tokenizer(kind)
    documents = [[sentence() for _ in range(draw.integers(1, 9))] for _ in range(23)]
    return store_of([[ours.encode_flat([one])[0] for one in document] for document in documents])


@KIND
@OBJECTIVE
def test_sequences_have_the_special_tokens_of_the_tokenizer(kind, objective):
    ours = tokenizer(kind)
    layout = ours.layout
    settings = BatchSettings(max_length=T, seed=5, objective=objective, masked_share=1e-6, short_probability=0.5)
    rows = PretrainingRows(store(kind), Vocabulary.of(ours), settings)
    numbers = np.arange(rows.per_pass)
    batch = rows(numbers)
    restored = batch["input_ids"].copy()
    for row, columns in enumerate(batch["masked_positions"]):
        kept = batch["masked_weights"][row] > 0
        restored[row, columns[kept]] = batch["masked_labels"][row, kept]
    sequences, in_row = rows.sequences(numbers)
    assert in_row.max() > 1
    found = iter(sequences.tolist())
    for row, count in enumerate(in_row.tolist()):
        for number in range(1, count + 1):
            a_start, b_start, a_length, b_length, _ = next(found)
            columns = np.flatnonzero(batch["attention_mask"][row] == number)
            a, b = store(kind).span(a_start, a_length).tolist(), store(kind).span(b_start, b_length).tolist()
            wanted = [*layout.prefix, *a, *layout.suffix]
            types = [0] * len(wanted)
            if objective == "mlm-nsp":
                wanted = [*layout.prefix, *a, *layout.middle, *b, *layout.pair_suffix]
                second = len(b) + len(layout.pair_suffix)
                types = [0] * (len(wanted) - second) + [int(layout.segments)] * second
                assert batch["cls_positions"][row, number - 1] == columns[0]
            assert restored[row, columns].tolist() == wanted
            assert batch["token_type_ids"][row, columns].tolist() == types
            assert batch["position_ids"][row, columns].tolist() == list(range(len(wanted)))
    assert len(layout.middle) == (1 if kind == "wordpiece" else 2)


@KIND
def test_whole_words_are_masked_with_all_their_pieces(kind):
    ours = tokenizer(kind)
    settings = BatchSettings(max_length=T, seed=5, objective="mlm", whole_word_masking=True, masked_share=0.3)
    rows = PretrainingRows(store(kind), Vocabulary.of(ours), settings)
    batch = rows(np.arange(rows.per_pass))
    masked = np.zeros(batch["input_ids"].shape, bool)
    ids = batch["input_ids"].copy()
    for row, columns in enumerate(batch["masked_positions"]):
        kept = batch["masked_weights"][row] > 0
        masked[row, columns[kept]] = True
        ids[row, columns[kept]] = batch["masked_labels"][row, kept]
    special = np.isin(ids, ours.special_ids)
    assert not (masked & special).any()
    joined = ours.continuation[ids[:, 1:]] & ~special[:, 1:] & ~special[:, :-1]
    assert joined.sum() > 20
    assert (masked[:, 1:] == masked[:, :-1])[joined].all()
    assert (masked[:, 1:] != masked[:, :-1])[~joined].any()


@KIND
def test_long_sentences_leave_room_for_the_special_tokens(kind, tmp_path):
    special = special_tokens(tokenizer(kind).layout)
    room = 24 - special["mlm-nsp"]
    long = store_of([[range(5, 5 + room)], [range(5, 6 + room)]])
    assert count_long_sentences(long, objective="mlm-nsp", max_length=24, special=special) == 1
    documents = datasets.Dataset.from_dict({"text": ["owl " * 99]})
    long = tokenize_corpus(documents, tokenizer(kind), cache_dir=tmp_path, num_proc=1)
    split = split_long_sentences(long, max_length=24, cache_dir=tmp_path, special=special)
    assert np.diff(split.sentence_offsets).max() == (room + 1) // 2


def test_a_tokenizer_without_a_mask_is_refused():
    for kind in kinds.KINDS:
        with pytest.raises(ValueError, match="the tokenizer has no mask token"):
            Vocabulary.of(Tokenizer(kinds.without_mask(kind)))


def short_rows(vocabulary, length, objective):
    settings = BatchSettings(max_length=length, objective=objective, packing=False)
    return PretrainingRows(store("bpe"), vocabulary, settings)


@OBJECTIVE
def test_rows_too_short_for_the_layout_are_an_error(objective):
    least = {"mlm-nsp": 6, "mlm": 3}[objective]
    vocabulary = Vocabulary.of(tokenizer("bpe"))
    short_rows(vocabulary, least, objective)
    with pytest.raises(ValueError, match=f"`max_length` must be at least {least}"):
        short_rows(vocabulary, least - 1, objective)
