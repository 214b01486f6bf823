"""Sentences longer than a row are split, so that a few passes show every token; other corpora stay as they are."""

import pickle

import datasets
import numpy as np
import pytest

from bert_jax.data.pretraining.long_sentences import split_lengths, split_long_sentences
from bert_jax.data.pretraining.sequence_planning import plan_sequences
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import wordpiece

PIECES = [f"w{number}" for number in range(997)]
PASSES = 19


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(wordpiece(PIECES, lowercase=True, strip_accents=None))


@pytest.fixture
def store_of(tokenizer, tmp_path):
    def make(documents: list[list[int]]) -> TokenStore:
        """Returns a store of documents given the tokens of their sentences; a sentence is a paragraph."""
        texts = ["\n\n".join(" ".join(PIECES[:length]) for length in document) for document in documents]
        return tokenize_corpus(datasets.Dataset.from_dict({"text": texts}), tokenizer, cache_dir=tmp_path)

    return make


def lengths(store: TokenStore) -> list[list[int]]:
    """Returns the tokens of each sentence of each document."""
    tokens = np.diff(store.sentence_offsets)
    return [part.tolist() for part in np.split(tokens, store.document_offsets[1:-1])]


def shown(store: TokenStore, max_length: int, passes: int) -> float:
    """Returns the fraction of the tokens that some pass shows in their own place."""
    seen = np.zeros(store.num_tokens, bool)
    for number in range(passes):
        for pairs in plan_sequences(store, objective="mlm-nsp", max_length=max_length, seed=3, pass_number=number):
            for start, length in (("a_start", "a_length"), ("b_start", "b_length")):
                for pair in pairs[pairs["label"] == 0] if start == "b_start" else pairs:
                    seen[pair[start] : pair[start] + pair[length]] = True
    return seen.mean()


@pytest.mark.parametrize(
    "documents",
    [
        [[500], [7, 500, 3], [11]],  # the other sentences are short
        [[500]] * 5,  # speech: a document is a sentence
        [[126, 126, 126], [126]],  # a token longer than a row
        [[997, 250, 251, 25]] * 3,
    ],
)
def test_every_token_of_long_sentences_is_shown_after_some_passes(store_of, tmp_path, documents):
    store = store_of(documents)
    split = split_long_sentences(store, max_length=128, cache_dir=tmp_path)
    assert shown(split, 128, PASSES) == 1
    assert shown(store, 128, PASSES) < 0.8


def test_pieces_of_half_a_row_are_shown_whole_in_each_pass(store_of, tmp_path):
    split = split_long_sentences(store_of([[500]] * 11), max_length=128, cache_dir=tmp_path)
    plans = plan_sequences(split, objective="mlm-nsp", max_length=128, short_probability=0.0, seed=0, pass_number=0)
    pairs = np.concatenate([*plans])
    tokens = pairs["a_length"].sum() + pairs["b_length"][pairs["label"] == 0].sum()
    assert tokens > 0.98 * split.num_tokens


def test_only_offsets_change(store_of, tmp_path):
    documents = [[7, 30, 3], [20], [5], [97, 19, 21]]
    store = store_of(documents)
    split = split_long_sentences(store, max_length=23, cache_dir=tmp_path)
    assert lengths(split) == [[7, *[10] * 3, 3], [20], [5], [*[10] * 9, 7, 19, 10, 10, 1]]
    assert split.split_sentences == 3
    np.testing.assert_array_equal(split.span(0, 40), store.span(0, 40))
    assert split.fingerprint != store.fingerprint
    again = pickle.loads(pickle.dumps(split))
    assert lengths(again) == lengths(split)
    assert (again.fingerprint, again.split_sentences) == (split.fingerprint, 3)


def test_a_corpus_without_long_sentences_stays_the_same(store_of, tmp_path):
    store = store_of([[20, 3], [7]])
    before = sorted(tmp_path.iterdir())
    assert split_long_sentences(store, max_length=23, cache_dir=tmp_path) is store
    assert sorted(tmp_path.iterdir()) == before
    assert store.split_sentences == 0


def test_each_row_length_has_its_own_pieces(store_of, tmp_path):
    store = store_of([[100], [5]])
    found = [split_long_sentences(store, max_length=length, cache_dir=tmp_path) for length in (23, 53, 23)]
    assert [store.num_sentences for store in found] == [11, 5, 11]
    assert found[0].fingerprint == found[2].fingerprint != found[1].fingerprint


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_blocks_of_sentences_do_not_change_the_result(store_of, tmp_path, monkeypatch, block):
    monkeypatch.setattr("bert_jax.data.pretraining.long_sentences.SENTENCES_AT_ONCE", block)
    split = split_long_sentences(store_of([[7, 30], [25], [5, 5, 99]]), max_length=23, cache_dir=tmp_path)
    assert lengths(split) == [[7, 10, 10, 10], [10, 10, 5], [5, 5, *[10] * 9, 9]]


def test_pieces_add_up_to_the_sentence():
    given = np.arange(1, 101)
    for room in (2, 3, 20):
        piece = (room + 1) // 2
        found = split_lengths(given, room, piece)
        assert found.sum() == given.sum()
        assert found.max() <= room
        assert found.min() >= 1
